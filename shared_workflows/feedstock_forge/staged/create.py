"""Bring feedstocks to GitHub, step by step: each step looks first whether it was done, so any of them may be the last.

What is left to do is what stands in ``recipes/``: a recipe is taken out of there at the very end. Whoever stops in
between, or is stopped, goes on by doing the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from ..findings import Finding, Refused, Severity, Who, rule
from ..git import FORGE, Repository, clone_url
from ..github import NOT_FOUND, REFUSED, GitHub
from ..markdown import code, escape
from ..report import finding as item
from ..template import OWN_CHECK
from . import folders
from .feedstock import Feedstock, Source, Template, make

TAKEN = rule("feedstock-repository-taken", "Nothing is ever written into a repository that holds something else.")
NO_TOKEN = rule(
    "staged-token-missing",
    "A workflow's own token reaches one repository; to create others takes a GitHub App of the organisation.",
    who=Who.ORGANISATION,
)
NOT_INVITED = rule(
    "maintainer-not-invited",
    "Without a maintainer who can merge, nobody looks after the feedstock.",
    severity=Severity.WARNING,
    who=Who.ORGANISATION,
)
NOT_REMOVED = rule(
    "staged-recipe-not-removed",
    "A recipe that stays among the staged ones is taken for one that waits.",
    severity=Severity.WARNING,
    who=Who.ORGANISATION,
)

BRANCH = "main"
RULESET = "Feedstock Forge"
TOPICS = ("feedstock", "analysis-ready-data")
PERMISSION = "push"
CHECK = "check.yml"
MAY_PUSH = ("write", "maintain", "admin")
REMOVAL = "staged/created"
"""The branch that takes recipes out where the default branch takes no push."""


class State(StrEnum):
    """How it went with one recipe."""

    PLANNED = "planned"  # what a dry run says
    CREATED = "created"
    STANDS = "stands"  # nothing was left to do
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, or would be done, about one recipe."""

    name: str
    repository: str
    """The feedstock, as ``owner/name``."""
    state: State
    done: tuple[str, ...] = ()
    """The steps that were taken this time, or would be."""
    findings: tuple[Finding, ...] = ()
    feedstock: Feedstock | None = None
    pull: int | None = None
    """The merged pull request that brought the recipe."""


@dataclass(frozen=True, slots=True)
class Staged:
    """The repository of staged recipes: its name, a full clone of it, and the commit that is worked on."""

    name: str
    clone: Repository
    commit: str
    server: str

    @property
    def owner(self) -> str:
        """The organisation, which owns the feedstocks too."""
        return self.name.split("/")[0]

    @property
    def url(self) -> str:
        """Where git fetches it from and pushes to."""
        return clone_url(self.server, self.name)


def create(
    client: GitHub,
    staged: Staged,
    names: Sequence[str],
    template: Template,
    *,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> list[Outcome]:
    """Make a feedstock of each recipe, and take those out that are made. Never raises for one recipe.

    ``say`` is told every step when it is taken.
    """
    outcomes = []
    with Source(template) as source:
        for number, name in enumerate(names, 1):
            prefix = f"[{number}/{len(names)}] {name}: "
            outcomes.append(_one(client, staged, name, source, dry_run, lambda step, at=prefix: say(at + step)))  # type: ignore[misc]
    made = [outcome for outcome in outcomes if outcome.state in (State.CREATED, State.STANDS)]
    if made and not dry_run:
        try:
            say(_remove(client, staged, made))
        except Refused as refused:
            fix = f"remove {', '.join(folders.path_of(outcome.name) for outcome in made)} by hand, or run this again"
            finding = NOT_REMOVED.at(None, f"{staged.name} keeps its recipes: {refused}", fix)
            outcomes = [
                replace(outcome, findings=(*outcome.findings, finding)) if outcome in made else outcome
                for outcome in outcomes
            ]
    return outcomes


def _one(
    client: GitHub, staged: Staged, name: str, source: Source, dry_run: bool, say: Callable[[str], None]
) -> Outcome:
    repository = f"{staged.owner}/{name}-feedstock"
    pull = None
    try:
        pull = _pull(client, staged, name)
        feedstock = make(staged.clone, staged.commit, name, source, staged.name)
        work = _Work(client, staged, feedstock, repository, say)
        outcome = replace(work.plan() if dry_run else work.do(), pull=pull)
    except Refused as refused:
        outcome = Outcome(name, repository, State.REFUSED, findings=refused.findings, pull=pull)
        say(f"refused: {refused}")
    if pull is not None and not dry_run:
        try:
            client.comment(staged.name, pull, marker(name), comment(outcome, staged.server))
        except Refused as refused:
            # The recipe stays, so that the next time says it.
            return replace(outcome, state=State.REFUSED, findings=(*outcome.findings, *refused.findings))
    return outcome


def _pull(client: GitHub, staged: Staged, name: str) -> int | None:
    source = staged.clone.run("rev-list", "-1", staged.commit, "--", f"{folders.path_of(name)}/").strip()
    merged = [row for row in client.pulls_of(staged.name, source) if row.get("merged_at")]
    return int(merged[0]["number"]) if merged else None


@dataclass(slots=True)
class _Work:
    """The steps for one feedstock."""

    client: GitHub
    staged: Staged
    feedstock: Feedstock
    repository: str
    say: Callable[[str], None]
    done: list[str] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    @property
    def url(self) -> str:
        return clone_url(self.staged.server, self.repository)

    def plan(self) -> Outcome:
        known = self.client.repository(self.repository)
        moved = self.feedstock.moved
        if self._holds(known):
            steps = ["finish what is left of an earlier time"]
        else:
            count = len(self.feedstock.files)
            steps = [*([] if known else [f"create {self.repository}"])]
            steps += [f"push {count} files of the template {self.feedstock.version} and {moved.commits} commits"]
            steps += ["set topics, rules for the default branch and maintainers, and start the first check"]
        for step in steps:
            self.say(f"would {step}")
        return Outcome(self.feedstock.name, self.repository, State.PLANNED, tuple(steps), feedstock=self.feedstock)

    def do(self) -> Outcome:
        known = self.client.repository(self.repository)
        holds = self._holds(known)
        if known is None:
            self._say(f"create {self.repository}")
            private = bool((self.client.repository(self.staged.name) or {}).get("private"))
            description = self.feedstock.meta.title[:350]
            known = self.client.create_repository(self.repository, description=description, private=private)
        if not holds:
            self._say(f"push {len(self.feedstock.files)} files and {self.feedstock.moved.commits} commits")
            self.staged.clone.run("push", "--quiet", self.url, f"{self.feedstock.commit}:refs/heads/{BRANCH}")
        # The rules come last: once they are there, so is everything before them.
        if not any(row["name"] == RULESET for row in self.client.rulesets(self.repository)):
            self._set_up()
        if not self.client.has_run(self.repository, CHECK):
            self._say("start the first check")
            self.client.start(self.repository, CHECK, BRANCH)
        state = State.CREATED if self.done else State.STANDS
        return Outcome(
            self.feedstock.name, self.repository, state, tuple(self.done), tuple(self.warnings), self.feedstock
        )

    def _say(self, step: str) -> None:
        self.done.append(step)
        self.say(step)

    def _holds(self, known: dict[str, Any] | None) -> bool:
        """Whether the repository holds this recipe's history. Raises :class:`Refused` if it holds another's."""
        if known is None:
            return False
        fix = f"propose the change to {known['full_name']} itself, or choose another id for the recipe"
        if known["full_name"].lower() != self.repository.lower():
            message = f"{self.repository} is the former name of {known['full_name']}"
            raise Refused(TAKEN.at(None, message, fix))
        clone = self.staged.clone
        if not (clone.run("ls-remote", self.url).strip()):
            return False
        clone.run("fetch", "--quiet", "--no-tags", self.url, str(known.get("default_branch") or BRANCH))
        if clone.ask("merge-base", "--is-ancestor", self.feedstock.moved.tip, "FETCH_HEAD") is None:
            raise Refused(TAKEN.at(None, f"{self.repository} exists, and does not come from this recipe", fix))
        return True

    def _set_up(self) -> None:
        topics = self.client.topics(self.repository)
        if wanted := [topic for topic in TOPICS if topic not in topics]:
            self._say(f"set topics: {', '.join(TOPICS)}")
            self.client.set_topics(self.repository, [*topics, *wanted])
        for person in self.feedstock.meta.maintainers:
            if self.client.role(self.repository, person.github) in MAY_PUSH:
                continue
            self._say(f"invite {person.github}")
            try:
                self.client.invite(self.repository, person.github, PERMISSION)
            except Refused as refused:
                # Nobody has this name, or they may not be invited: that is for people to settle, not for trying again.
                if any(finding.rule not in (NOT_FOUND, REFUSED) for finding in refused.findings):
                    raise
                message = f"{person.github} could not be invited to {self.repository}: {refused}"
                self.warnings.append(NOT_INVITED.at(None, message, "correct `maintainers` there, and invite them"))
        self._say("set the rules for the default branch")
        self.client.create_ruleset(self.repository, ruleset(len(self.feedstock.meta.maintainers)))


def ruleset(maintainers: int) -> dict[str, Any]:
    """The rules for a feedstock's default branch: by pull request, checked, and approved where there are two to agree.

    https://docs.github.com/en/rest/repos/rules#create-a-repository-ruleset
    """
    others = min(maintainers - 1, 1)
    review = {
        "required_approving_review_count": others,
        "dismiss_stale_reviews_on_push": True,
        "require_code_owner_review": bool(others),
        "require_last_push_approval": False,
        "required_review_thread_resolution": False,
    }
    checks = [{"context": OWN_CHECK}, {"context": "label consent"}]
    return {
        "name": RULESET,
        "target": "branch",
        "enforcement": "active",
        "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}},
        "rules": [
            {"type": "deletion"},
            {"type": "non_fast_forward"},
            {"type": "pull_request", "parameters": review},
            {
                "type": "required_status_checks",
                "parameters": {"strict_required_status_checks_policy": False, "required_status_checks": checks},
            },
        ],
    }


def _remove(client: GitHub, staged: Staged, made: Iterable[Outcome]) -> str:
    """Take recipes out of the default branch as it is now; returns what became of it."""
    made = list(made)
    default = str((client.repository(staged.name) or {}).get("default_branch") or BRANCH)
    clone, head, commit = staged.clone, "", ""
    while True:
        clone.run("fetch", "--quiet", "--no-tags", staged.url, default)
        before, head = head, clone.run("rev-parse", "FETCH_HEAD").strip()
        # Who changed a recipe in the meantime has not seen it become a feedstock: it stays, and is refused with a word.
        gone = [outcome for outcome in made if _unchanged(clone, head, outcome)]
        if not gone:
            return f"{staged.name}: nothing is left to remove"
        names = ", ".join(outcome.name for outcome in gone)
        if head == before:
            return _propose(client, staged, default, commit, names)
        commit = _without(clone, head, gone)
        if clone.ask("push", "--quiet", staged.url, f"{commit}:refs/heads/{default}") is not None:
            return f"{staged.name}: removed {names}"


def _unchanged(clone: Repository, head: str, outcome: Outcome) -> bool:
    tree = clone.ask("rev-parse", "--verify", "--quiet", f"{head}:{folders.path_of(outcome.name)}")
    return outcome.feedstock is not None and tree == outcome.feedstock.recipe_tree


def _without(clone: Repository, head: str, gone: Sequence[Outcome]) -> str:
    tree = _prune(clone, f"{head}^{{tree}}", {outcome.name for outcome in gone})
    words = "\n".join(f"{outcome.name} is {outcome.repository} now." for outcome in gone)
    message = f"Remove recipes that are feedstocks now\n\n{words}\n"
    return clone.run("commit-tree", tree, "-p", head, stdin=message, environment=FORGE).strip()


def _prune(clone: Repository, tree: str, names: set[str]) -> str:
    """The tree without these folders of ``recipes/``."""
    kept = [
        row
        for row in clone.run("ls-tree", "-z", f"{tree}:{folders.RECIPES}").split("\0")
        if row and row.split("\t", 1)[1] not in names
    ]
    recipes = clone.run("mktree", "-z", stdin="".join(f"{row}\0" for row in kept)).strip()
    top = [row for row in clone.run("ls-tree", "-z", tree).split("\0") if row]
    rows = [row for row in top if row.split("\t", 1)[1] != folders.RECIPES]
    if kept:
        rows.append(f"040000 tree {recipes}\t{folders.RECIPES}")
    return clone.run("mktree", "-z", stdin="".join(f"{row}\0" for row in rows)).strip()


def _propose(client: GitHub, staged: Staged, default: str, commit: str, names: str) -> str:
    """Ask for the removal by a pull request, where the default branch takes no push."""
    staged.clone.run("push", "--quiet", "--force", staged.url, f"{commit}:refs/heads/{REMOVAL}")
    if found := client.open_pulls(staged.name, f"{staged.owner}:{REMOVAL}"):
        return f"{staged.name}: {found[0]['html_url']} removes {names}"
    pull = client.create_pull(
        staged.name,
        head=f"{staged.owner}:{REMOVAL}",
        base=default,
        title="Remove recipes that are feedstocks now",
        body="These recipes have repositories of their own. The default branch takes no push, so please merge this.\n",
    )
    return f"{staged.name}: {pull['html_url']} removes {names}"


def marker(name: str) -> str:
    """What the comment about a recipe begins with."""
    return f"<!-- feedstock-forge: feedstock of {name} -->"


def comment(outcome: Outcome, server: str) -> str:
    """What the merged pull request is told about a recipe."""
    lines = [marker(outcome.name)]
    if outcome.state is State.REFUSED or outcome.feedstock is None:
        lines += [f"### {code(outcome.name)} is not a feedstock yet", ""]
        lines += [item(finding) for finding in outcome.findings]
        lines += ["", "The recipe stays here; the next merge tries again."]
        return "\n".join(lines) + "\n"
    page = f"{server}/{outcome.repository}"
    meta = outcome.feedstock.meta
    people = " ".join(f"@{person.github}" for person in meta.maintainers)
    asks = [f"{code(wish.label)} at {code(wish.id)}" for wish in meta.bakeries]
    lines += [
        f"### {escape(meta.title)} has a home: [{outcome.repository}]({page})",
        "",
        f"{people}, it is yours now, with the recipe's history. What comes next:",
        "",
        f"1. Accept the [invitation]({page}/invitations), if you got one.",
        f"2. Look at the [first check]({page}/actions/workflows/{CHECK}).",
    ]
    asking = f"It asks for {' and '.join(asks)}." if asks else "It asks for no bakery yet."
    lines += [f"3. {asking} Publish a release there, and the dataset is made wherever a bakery has agreed."]
    if outcome.findings:
        lines += ["", "**Left to people**", "", *(item(finding) for finding in outcome.findings)]
    return "\n".join(lines) + "\n"


def summary(outcomes: Sequence[Outcome], server: str) -> str:
    """The job's summary."""
    if not outcomes:
        return "### No recipe waits\n\nThere is nothing to create."
    lines = ["### Feedstocks", "", "| recipe | feedstock | state | what was done |", "|---|---|---|---|"]
    for outcome in outcomes:
        page = f"[{outcome.repository}]({server}/{outcome.repository})"
        lines.append(f"| {code(outcome.name)} | {page} | {outcome.state} | {escape('; '.join(outcome.done))} |")
    findings = [finding for outcome in outcomes for finding in outcome.findings]
    if findings:
        lines += ["", *(item(finding) for finding in findings)]
    return "\n".join(lines)
