"""What a pull request that touches labels is told: who has consented, who has not, and what happens on merge.

Everything is read from GitHub at that moment: the roles from the default branch, the reviews by numeric id and by the
commit that they saw. Nothing of the pull request is checked out; its files are read as data.
"""

from __future__ import annotations

import datetime
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import meta
from ..bakery import Bakeries, Bakery
from ..findings import Finding, Refused, Severity, Who, rule
from ..github import TOO_LARGE, GitHub
from ..markdown import code, escape
from ..meta import FILE, FOLDER, Meta, slug
from ..models import validate
from ..report import finding as item
from ..yaml_file import parse_yaml
from .grants import check_grant

OTHER_ID = rule(
    "grant-repository-id-wrong",
    "A grant to a number that is not the repository's grants nothing, or grants it to somebody else.",
    who=Who.OPERATOR,
)
LOST_ROLE = rule(
    "approval-not-counted",
    "Only who has the role at this moment can consent, for the commit that stands now.",
)

CONTEXT = "label consent"
MARKER = "<!-- feedstock-forge: label consent -->"
CONSENT = "/consent"
_HOW = (
    f"Approve with a review of this commit; who opened the pull request reviews it with the comment `{CONSENT}`. "
    "A later commit voids either."
)
_MAINTAINING = ("admin", "maintain")


@dataclass(frozen=True, slots=True)
class Side:
    """One consent that a pull request needs."""

    who: str
    """Whose consent, for people."""
    people: tuple[str, ...]
    """The logins that can give it."""
    given_by: str | None


@dataclass(frozen=True, slots=True)
class State:
    """The state of a pull request's consents."""

    repository: str
    number: int
    commit: str
    sides: tuple[Side, ...]
    findings: tuple[Finding, ...]
    on_merge: tuple[str, ...]
    notes: tuple[Finding, ...] = ()
    """Approvals that do not count, and why."""

    @property
    def touches_labels(self) -> bool:
        """Whether labels are this pull request's matter at all."""
        return bool(self.sides or self.findings)

    @property
    def check(self) -> tuple[str, str]:
        """The required check: its state, and a line that says why."""
        if not self.touches_labels:
            return "success", "this pull request touches no label"
        if wrong := {finding.id for finding in self.findings if finding.severity is Severity.ERROR}:
            return "failure", f"to be mended: {', '.join(sorted(wrong))}"
        waiting = [side.who for side in self.sides if side.given_by is None]
        if waiting:
            return "pending", f"waiting for {'; '.join(waiting)}"
        return "success", f"consented: {', '.join(side.given_by or '' for side in self.sides)}"


def read(client: GitHub, repository: str, number: int) -> State:
    """The state of a pull request of a feedstock or of the forge. Raises :class:`Refused` if GitHub cannot be asked."""
    pull = client.pull(repository, number)
    commit = str(pull["head"]["sha"])
    # A fork that was deleted leaves its commits where the pull request is.
    source = str((pull["head"].get("repo") or {}).get("full_name") or repository)
    try:
        files = client.pull_files(repository, number)
    except Refused as refused:
        if refused.findings[0].rule is not TOO_LARGE:
            raise
        return State(repository, number, commit, (), refused.findings, ())
    # A file that moves away is as much of a change to where it was.
    paths = {str(row[key]) for row in files for key in ("filename", "previous_filename") if row.get(key)}
    reviews = client.reviews(repository, number)
    look = _Look(client, repository, source, commit, reviews)
    bakeries = sorted({match[1] for path in paths if (match := re.match(r"bakeries/([^/]+)/", path))})
    gone = {str(row["filename"]) for row in files if row["status"] == "removed"}
    if bakeries:
        return look.forge(bakeries, sorted(paths - gone), number)
    if f"{FOLDER}/{FILE}" in paths:
        return look.feedstock(number)
    return State(repository, number, commit, (), (), ())


@dataclass(slots=True)
class _Look:
    client: GitHub
    repository: str
    source: str
    commit: str
    reviews: Sequence[Mapping[str, Any]]

    def forge(self, bakeries: Iterable[str], paths: Sequence[str], number: int) -> State:
        """A change to bakeries: an operator of each has to agree, by the bakery.yaml of the default branch."""
        sides: list[Side] = []
        findings: list[Finding] = []
        notes: list[Finding] = []
        on_merge: list[str] = []
        for bakery_id in bakeries:
            standing = self.client.file(self.repository, f"bakeries/{bakery_id}/bakery.yaml")
            if standing is None:
                who = f"a maintainer of {self.repository}, for the new bakery {bakery_id}"
                sides.append(self._who_maintains(who))
                continue
            try:
                bakery = validate(Bakery, parse_yaml(standing, Path(f"bakeries/{bakery_id}/bakery.yaml")))
            except Refused as refused:
                findings += refused.findings
                continue
            people = {operator.github: operator.id for operator in bakery.operators}
            side, uncounted = self._side(f"an operator of {bakery_id}", people)
            sides.append(side)
            notes += uncounted
        for path in paths:
            match = re.fullmatch(r"bakeries/([^/]+)/grants/([^/]+)", path)
            if match:
                wrong, said = self._grant(match[1], path)
                findings += wrong
                on_merge += said
        return State(self.repository, number, self.commit, tuple(sides), tuple(findings), tuple(on_merge), tuple(notes))

    def feedstock(self, number: int) -> State:
        """A change to meta.yaml: where it changes what is asked of bakeries, a maintainer has to agree."""
        before = self._meta(self.repository, None)
        after = self._meta(self.source, self.commit)
        if isinstance(after, Refused):
            return State(self.repository, number, self.commit, (), tuple(after.findings), ())
        known = before.bakeries if isinstance(before, Meta) else []
        same_people = isinstance(before, Meta) and before.maintainers == after.maintainers
        if known == after.bakeries and same_people:
            return State(self.repository, number, self.commit, (), (), ())
        # Who may say yes is what the default branch says, not what the pull request makes of it.
        who = f"a maintainer of {self.repository}"
        notes: list[Finding] = []
        if isinstance(before, Meta):
            side, notes = self._side(who, {person.github: person.id for person in before.maintainers})
        else:
            side = self._who_maintains(who)
        on_merge = [
            f"asks {code(wish.id)} for {code(wish.label)} on {' and '.join(wish.on)}"
            for wish in after.bakeries
            if wish not in known
        ]
        on_merge += [
            f"no longer asks {code(wish.id)} for {code(wish.label)}" for wish in known if wish not in after.bakeries
        ]
        return State(self.repository, number, self.commit, (side,), (), tuple(on_merge), tuple(notes))

    def _meta(self, repository: str, ref: str | None) -> Meta | Refused:
        content = self.client.file(repository, f"{FOLDER}/{FILE}", ref)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / FOLDER / FILE
            path.parent.mkdir()
            if content is not None:
                path.write_text(content, encoding="utf-8")
            try:
                return meta.read(Path(scratch), repository=self.repository).meta
            except Refused as refused:
                return refused

    def _grant(self, bakery_id: str, path: str) -> tuple[list[Finding], list[str]]:
        """What is wrong with a grant as the pull request has it, and what it comes to."""
        with tempfile.TemporaryDirectory() as scratch:
            bakeries = Bakeries(Path(scratch))
            for name in (f"bakeries/{bakery_id}/bakery.yaml", path):
                content = self.client.file(self.source, name, self.commit)
                copy = Path(scratch) / Path(name).relative_to("bakeries")
                copy.parent.mkdir(parents=True, exist_ok=True)
                if content is not None:
                    copy.write_text(content, encoding="utf-8")
            try:
                bakery = bakeries.read(bakery_id)
                file = bakeries.read_grant(copy)
            except Refused as refused:
                return list(refused.findings), []
        grant = file.grant
        findings = check_grant(bakery, file)
        known = self.client.repository(grant.repository)
        if known is None or known["id"] != grant.repository_id or known["full_name"] != grant.repository:
            now = f"{known['full_name']} ({known['id']})" if known else "not on GitHub, or not to be seen"
            message = f"the grant is to {grant.repository} ({grant.repository_id}); that is {now}"
            fix = f"write what `gh api repos/{grant.repository} --jq .id` says"
            findings.append(OTHER_ID.at(file.document.place(("repository_id",)), message, fix))
        until = f" until {grant.expires}" if grant.expires else ""
        recipes = "every recipe" if "*" in grant.recipes else ", ".join(code(name) for name in grant.recipes)
        verb = "may no longer run" if grant.revoked or _over(grant.expires) else "may run"
        said = f"{code(grant.repository)} {verb} {recipes} on {code(f'{bakery_id}.{grant.label}')}{until}"
        return findings, [f"{said}; {self._other_half(grant.repository, bakery_id, grant.label)}"]

    def _other_half(self, repository: str, bakery_id: str, label: str) -> str:
        """Whether the feedstock asks, by its default branch or an open pull request."""
        content = self.client.file(repository, f"{FOLDER}/{FILE}")
        try:
            asks = parse_yaml(content, Path(FILE)).data if content else None
        except Refused:
            return f"the feedstock's {FOLDER}/{FILE} cannot be read"
        wishes = asks.get("bakeries") if isinstance(asks, dict) else None
        for wish in wishes if isinstance(wishes, list) else []:
            if isinstance(wish, dict) and (wish.get("id"), wish.get("label")) == (bakery_id, label):
                return "the feedstock asks for it already"
        branch = f"{repository.split('/')[0]}:label/{bakery_id}/{slug(repository)}.{label}"
        open_ones = self.client.open_pulls(repository, branch)
        if open_ones:
            return f"the feedstock asks for it in {open_ones[0]['html_url']}"
        return "the feedstock does not ask for it yet"

    def _who_maintains(self, who: str) -> Side:
        """Where no file says who may say yes, as for a new bakery: whoever maintains the repository does."""
        for review in self._standing():
            login = str(review["user"]["login"])
            if _counts(review, self.commit) and self.client.role(self.repository, login) in _MAINTAINING:
                return Side(who, (), login)
        return Side(who, (), None)

    def _side(self, who: str, people: Mapping[str, int | None]) -> tuple[Side, list[Finding]]:
        """Whether one of these people has consented to this very commit; and approvals that do not count."""
        ids = {known or self._id(login): login for login, known in people.items()}
        ids.pop(0, None)
        given, notes = None, []
        for review in self._standing():
            login = str(review["user"]["login"])
            if review["user"]["id"] not in ids:
                if review["state"] == "APPROVED":
                    fix = f"ask {', '.join(f'@{name}' for name in people) or 'a maintainer of the organisation'}"
                    notes.append(LOST_ROLE.at(None, f"{login} is not {who} now", fix))
            elif _counts(review, self.commit):
                given = login
            elif review["state"] == "APPROVED":
                message = f"{login} approved {str(review['commit_id'])[:12]}; {self.commit[:12]} came later"
                notes.append(LOST_ROLE.at(None, message, f"ask @{login} to look again"))
        return Side(who, tuple(people), given), notes

    def _id(self, login: str) -> int:
        found = self.client.user(login)
        return int(found["id"]) if found else 0

    def _standing(self) -> list[Mapping[str, Any]]:
        """The last word of each reviewer; a comment is a word only if it consents."""
        last: dict[int, Mapping[str, Any]] = {}
        for review in self.reviews:
            if review.get("user") and (review["state"] != "COMMENTED" or _says_consent(review)):
                last[int(review["user"]["id"])] = review
        return list(last.values())


def _says_consent(review: Mapping[str, Any]) -> bool:
    """GitHub lets nobody approve their own pull request, but review it with a comment that says so."""
    return (review.get("body") or "").strip().split("\n")[0].strip() == CONSENT


def _counts(review: Mapping[str, Any], commit: str) -> bool:
    approves = review["state"] == "APPROVED" or (review["state"] == "COMMENTED" and _says_consent(review))
    return approves and review["commit_id"] == commit


def _over(expires: datetime.date | None) -> bool:
    return expires is not None and expires < datetime.datetime.now(datetime.UTC).date()


def comment(state: State) -> str:
    """The one comment of a pull request that touches labels."""
    verdict, why = state.check
    lines = [MARKER, f"### Label consent: {verdict}", "", escape(why) + f" (commit `{state.commit[:12]}`)", ""]
    lines += ["| consent of | given by | who can |", "|---|---|---|"]
    for side in state.sides:
        people = ", ".join(f"@{login}" for login in side.people) or "its maintainers"
        lines.append(f"| {escape(side.who)} | {f'✓ @{side.given_by}' if side.given_by else 'nobody yet'} | {people} |")
    if state.on_merge:
        lines += ["", "**On merge**", "", *(f"- {line}" for line in state.on_merge)]
    if state.findings:
        lines += ["", "**To be mended**", "", *(item(finding) for finding in state.findings)]
    if state.notes:
        lines += ["", "**Not counted**", "", *(f"- {escape(note.message)}: {escape(note.fix)}" for note in state.notes)]
    lines += ["", _HOW]
    return "\n".join(lines) + "\n"


def publish(client: GitHub, state: State) -> str:
    """Write the comment and set the check; returns the comment's page, or nothing where no comment is due."""
    page = client.comment(state.repository, state.number, MARKER, comment(state)) if state.touches_labels else ""
    verdict, why = state.check
    client.status(state.repository, state.commit, context=CONTEXT, state=verdict, description=why, url=page)
    return page
