"""What GitHub shows of runs: a deployment for each bakery and label, and one text in the release or the pull request.

Prefect knows how runs went. Everything here is read from it anew and compared with what GitHub shows, so reporting
twice writes nothing, and a report that was lost is made good by the next one. A deployment's ``payload`` holds what
Prefect does not know: which event it was for, and why a label was refused.
API: https://docs.github.com/en/rest/deployments
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .findings import Finding, Refused, rule, visible
from .github import REFUSED, UNREACHABLE, GitHub
from .labels import Decision
from .markdown import block, code, details, escape, sentence
from .prefect import Prefect
from .trigger import Trigger
from .watch import Watched, watched

UNKNOWN_RUN = rule("status-run-unknown", "The truth about a run is Prefect's; without it there is nothing to report.")
OTHER_REPOSITORY = rule("status-other-repository", "A run is reported in the repository that it belongs to, only.")
NO_RUN = rule("status-run-missing", "A dispatch that names no run reports nothing.")

EVENT_TYPE = "feedstock-run-ended"
"""The ``event_type`` of the ``repository_dispatch`` that Prefect sends when a run has ended."""
TASK = "bake"
"""The ``task`` of our deployments on GitHub: others in the repository are not ours to touch."""
MARKER = "<!-- feedstock-forge: status -->"
END = "<!-- feedstock-forge: end of status -->"
LOOK_BACK = datetime.timedelta(days=30)
"""How old a run or a deployment may be for a reconcile to look at it."""
GRACE = datetime.timedelta(hours=1)
"""How long a deployment may wait for its first run before a reconcile says that none came."""
MAX_DESCRIPTION = 140
MAX_TOLD = 5
"""Runs that did not end well and are told of with their log; the others are counted."""
MAX_LINES, MAX_LINE = 12, 300
"""Lines of a log that are shown, and characters of each: GitHub takes 65,536 for a comment."""

BEGUN = ("pending", "being registered")
"""What a deployment without a status is: GitHub shows it as pending too."""
NONE_CAME = ("error", "Prefect knows no run of it: run the job again under Actions")

_SECTION = re.compile(rf"{re.escape(MARKER)}(?:(?!{re.escape(MARKER)}).)*?{re.escape(END)}", re.DOTALL)
_SAY = {"success": "✓", "failure": "✗", "error": "✗", "in_progress": "…", "pending": "…"}


@dataclass(frozen=True, slots=True)
class Subject:
    """What is reported about: one version of a feedstock."""

    repository: str
    repository_id: int
    commit: str
    version: str
    event: str
    """``release`` or ``merge``."""
    pull_request: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a label may not be used; what a finding says, as GitHub keeps it for us."""

    id: str
    message: str
    fix: str
    who: str


@dataclass(frozen=True, slots=True)
class Label:
    """A bakery's label: the last run of each recipe there, and what was refused."""

    name: str
    """``<bakery>.<label>``, also the environment on GitHub."""
    runs: tuple[Watched, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    idle: tuple[str, str] = BEGUN
    """State and description while there is neither a run nor a refusal."""
    page: str = ""
    """Prefect's page of the run that says most."""
    granted: bool = True
    """Whether some recipes may run there, if not all."""
    production: bool = False
    """Whether it is the datasets themselves that are written there, and not trials on a few inputs."""

    @property
    def state(self) -> tuple[str, str]:
        """The deployment's state on GitHub, and a line that says why."""
        if not self.runs:
            return self.idle if self.granted or not self.refusals else ("error", _line(self.refusals[0]))
        bad = [run for run in self.runs if run.ended and not run.succeeded]
        going = [run for run in self.runs if not run.ended]
        many = f"{len(self.runs)} runs" if len(self.runs) > 1 else self.runs[0].name
        failed = f"{len(bad)} of {many} did not complete" if len(self.runs) > 1 else ""
        if any(run.ended or run.state not in ("SCHEDULED", "PENDING") for run in self.runs) and going:
            return "in_progress", f"{many}: {failed or 'running'}"
        if going:
            late = any(run.label == "Late" for run in going)
            return "pending", f"{many}: " + ("no worker has picked it up yet" if late else "waiting for a worker")
        if bad:
            first = f"{bad[0].name} {bad[0].label.lower()}: {bad[0].message or 'no reason given'}"
            return "failure", f"{failed}; {first}" if failed else first
        partly = f"; refused in part: {self.refusals[0].id}" if self.refusals else ""
        # A run may complete and still have something to say: that its dataset is not in the catalog, for one.
        said = next((f"; {run.message}" for run in self.runs if run.message), "")
        return "success", f"{many}: completed{partly}{said}"


def subject(found: Trigger) -> Subject:
    """What a trigger is about."""
    return Subject(found.repository, found.repository_id, found.commit, found.version, found.event, found.pull_request)


def subject_of(run: Watched, repository: str, repository_id: int) -> Subject | None:
    """What a run is about; ``None`` if it is not one of ours, or of another repository."""
    commit, version = run.parameters.get("commit"), run.tags.get("version")
    if run.tags.get("repository") != str(repository_id) or not commit or not version:
        return None
    event = run.tags.get("event") or ("release" if run.parameters.get("mode") == "complete" else "merge")
    number = run.tags.get("pull-request", "")
    return Subject(repository, repository_id, str(commit), version, event, int(number) if number.isdigit() else None)


def asked(decision: Decision) -> Label:
    """A label that the event asks for, before anything runs there."""
    production = bool(decision.recipes) and decision.allowed_label.prune != "required"
    why = _refusals(decision.findings)
    return Label(decision.name, refusals=why, granted=bool(decision.recipes), production=production)


def _refusals(findings: Iterable[Finding]) -> tuple[Refusal, ...]:
    """What is kept of a decision's findings."""
    return tuple(Refusal(item.id, item.message, item.fix, str(item.who)) for item in list(findings)[:5])


def begin(github: GitHub, about: Subject, asked: Sequence[Label]) -> list[Finding]:
    """Show that labels are being registered, or why they are refused; called before the first run is made.

    ``asked`` is every label that the event asks for. What GitHub shows stays. Returns what could not be written.
    """
    wrong: list[Finding] = []
    try:
        shown = _shown(github, about)
        for label in asked:
            row = shown.get(label.name)
            if row is None or _kept(row) != (label.granted, label.refusals):
                made = _create(github, about, label)
                if row is not None:
                    _inactive(github, about, row)
                row = made
            if not label.granted and _now(github, about, row) is None:
                _set(github, about, row, label)
        if not any(label.granted for label in asked):
            _write(github, about, section(None, asked))
    except Refused as refused:
        wrong += refused.findings
    return wrong


def stopped(github: GitHub, about: Subject, asked: Sequence[Label], why: Finding) -> list[Finding]:
    """Show that registering stopped, where nothing else is known; a later report tells what became of it."""
    wrong: list[Finding] = []
    line = f"{why.id}: run the job again, it goes on from there"
    try:
        shown = _shown(github, about)
        for label in asked:
            row = shown.get(label.name)
            if row and label.granted and (_now(github, about, row) or BEGUN)[0] == "pending":
                _set(github, about, row, replace(label, idle=("error", line)))
    except Refused as refused:
        wrong += refused.findings
    return wrong


def report_on(
    github: GitHub,
    prefect: Prefect,
    about: Subject,
    *,
    rewrite: bool = True,
    now: datetime.datetime | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[list[Label], list[Finding]]:
    """Make GitHub show what Prefect knows about one version; returns the labels, and what could not be written.

    The text in the release or the pull request is written anew if a deployment's status changed, or if ``rewrite``.
    Who knows the time with ``now`` ends deployments for which no run came. Raises :class:`Refused` if Prefect does not
    answer.
    """
    rows = prefect.runs_tagged([f"repository:{about.repository_id}", f"version:{about.version}"])
    runs = [run for run in map(watched, rows) if run.parameters.get("commit") == about.commit]
    wrong: list[Finding] = []
    try:
        shown = _shown(github, about)
    except Refused as refused:
        return _labels(prefect, runs, {}), list(refused.findings)
    labels = _labels(prefect, runs, shown)
    about = _numbered(about, runs, shown.values())
    changed: list[tuple[Mapping[str, Any] | None, Label]] = []
    for index, label in enumerate(labels):
        row = shown.get(label.name)
        try:
            before = _now(github, about, row) if row else None
        except Refused as refused:
            wrong += refused.findings
            continue
        if label.state == label.idle and row:
            waits = before is None or before[0] in ("pending", "in_progress")
            if now is None or not waits or _made(row) > now - GRACE:
                labels[index] = replace(label, idle=before or BEGUN)
                continue
            labels[index] = label = replace(label, idle=NONE_CAME)
        # GitHub ends a deployment that went well when the next one does: that is no less true.
        rests = before is not None and before[0] == "inactive" and label.state[0] == "success"
        if before != _short(label.state) and not rests:
            changed.append((row, label))
    if changed or rewrite:
        try:
            _write(github, about, section(prefect, labels))
        except Refused as refused:
            wrong += refused.findings
    for row, label in changed:
        try:
            _set(github, about, row or _create(github, about, label), label)
            say(f"{about.version[:40]} at {label.name}: {label.state[0]} ({label.state[1]})")
        except Refused as refused:
            wrong += refused.findings
    return labels, wrong


def states(prefect: Prefect, runs: Sequence[Watched]) -> list[tuple[str, str]]:
    """The state that each label of these runs has, to see whether there is anything to report."""
    return [label.state for label in _labels(prefect, runs, {})]


def reconcile(
    github: GitHub,
    prefect: Prefect,
    repository: str,
    repository_id: int,
    *,
    now: datetime.datetime,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[list[Subject], list[Finding]]:
    """Make GitHub show what Prefect knows about all that happened lately.

    Returns what was looked at, and what could not be written. Raises :class:`Refused` if Prefect's runs or GitHub's
    deployments cannot be read.
    """
    since = now - LOOK_BACK
    found = [
        subject_of(run, repository, repository_id)
        for run in map(watched, prefect.runs_tagged([f"repository:{repository_id}"], since=since))
    ]
    for row in github.deployments(repository, task=TASK):
        if _made(row) < since:
            break
        found.append(_subject_shown(row, repository, repository_id))
    # One and the same, whether a pull request's number came along or not.
    subjects = {(about.commit, about.version): about for about in found if about}
    wrong: list[Finding] = []
    for about in subjects.values():
        wrong += report_on(github, prefect, about, rewrite=False, now=now, say=say)[1]
    return list(subjects.values()), wrong


def run_dispatched(event: Mapping[str, Any]) -> str:
    """What a ``repository_dispatch`` of Prefect's calls the run that has ended; empty if it names none."""
    payload = event.get("client_payload")
    return str(payload.get("run", "")) if isinstance(payload, Mapping) else ""


def run_id(named: str) -> str:
    """A run's id, with Prefect's prefix or without. Raises :class:`Refused` if it is none."""
    found = re.fullmatch(r"(?:prefect\.flow-run\.)?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", named)
    if not found:
        message = f"`{named}` is not the id of a run" if named else "the event's client_payload names no run"
        raise Refused(NO_RUN.at(None, message, "dispatch it as `feedstock bakery serve` sets it up, or name the run"))
    return found[1]


def subject_of_id(prefect: Prefect, run: str, repository: str, repository_id: int) -> Subject:
    """What a run is about, by its id. Raises :class:`Refused` if Prefect has no such run, or not of this repository."""
    row = next(iter(prefect.runs_by_id([run])), None)
    if row is None:
        fix = "check PREFECT_API_URL; a run that was deleted needs no report"
        raise Refused(UNKNOWN_RUN.at(None, f"Prefect has no run {run}", fix))
    about = subject_of(watched(row), repository, repository_id)
    if about is None:
        message = f"the run {run} is not of {repository} ({repository_id})"
        raise Refused(OTHER_REPOSITORY.at(None, message, "report it from the repository that it belongs to"))
    return about


def _numbered(about: Subject, runs: Iterable[Watched], shown: Iterable[Mapping[str, Any]]) -> Subject:
    """The subject with its pull request's number: a person who runs a merge again brings none along."""
    numbers: list[Any] = [about.pull_request, *(run.tags.get("pull-request") for run in runs)]
    numbers += [_payload(row).get("pull_request") for row in shown]
    return replace(about, pull_request=next((int(number) for number in numbers if str(number).isdigit()), None))


def _labels(prefect: Prefect, runs: Sequence[Watched], shown: Mapping[str, Mapping[str, Any]]) -> list[Label]:
    """Every label that Prefect or GitHub knows of, with the last run of each recipe."""
    last: dict[tuple[str, str], Watched] = {}
    for run in sorted(runs, key=lambda run: run.created):
        last[f"{run.tags.get('bakery')}.{run.tags.get('label')}", run.tags.get("recipe", run.name)] = run
    labels = []
    for name in sorted({name for name, _ in last} | set(shown)):
        mine = tuple(run for (label, _), run in sorted(last.items(), key=lambda item: item[0]) if label == name)
        bad = [run for run in mine if run.ended and not run.succeeded]
        page = prefect.page((bad or mine)[0].id) if mine else ""
        granted, why = _kept(shown[name]) if name in shown else (True, ())
        pruned = any(run.parameters.get("prune") for run in mine)
        labels.append(Label(name, mine, why, page=page, granted=granted, production=bool(mine) and not pruned))
    return labels


def _shown(github: GitHub, about: Subject) -> dict[str, Mapping[str, Any]]:
    """The newest deployment of each environment for a version."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in github.deployments(about.repository, task=TASK, commit=about.commit):
        if _payload(row).get("version") == about.version:
            name = str(row["environment"])
            if name not in found or row["id"] > found[name]["id"]:
                found[name] = row
    return found


def _made(row: Mapping[str, Any]) -> datetime.datetime:
    return datetime.datetime.fromisoformat(str(row["created_at"]))


def _subject_shown(row: Mapping[str, Any], repository: str, repository_id: int) -> Subject | None:
    payload = _payload(row)
    number = payload.get("pull_request")
    if not payload.get("version"):
        return None
    return Subject(
        repository,
        repository_id,
        str(row["sha"]),
        str(payload["version"]),
        str(payload.get("event")),
        number if isinstance(number, int) else None,
    )


def _payload(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A deployment's payload: GitHub gives back text where text was sent."""
    payload = row.get("payload")
    if isinstance(payload, str):
        try:
            payload = json.loads(payload)
        except ValueError:
            return {}
    return payload if isinstance(payload, Mapping) else {}


def _kept(row: Mapping[str, Any]) -> tuple[bool, tuple[Refusal, ...]]:
    """Whether a label was granted to some recipes, and what was refused, as a deployment keeps it."""
    payload, fields = _payload(row), ("id", "message", "fix", "who")
    kept = payload.get("refused")
    refused = tuple(
        Refusal(*(str(item.get(name, "")) for name in fields)) for item in kept or [] if isinstance(item, Mapping)
    )
    return bool(payload.get("granted", True)), refused


def _create(github: GitHub, about: Subject, label: Label) -> Mapping[str, Any]:
    payload = {
        "version": about.version,
        "event": about.event,
        "pull_request": about.pull_request,
        "granted": label.granted,
        "refused": [asdict(item) for item in label.refusals],
    }
    body = {
        "ref": about.commit,
        "task": TASK,
        "environment": label.name,
        "description": f"{about.version} at {label.name}"[:MAX_DESCRIPTION],
        "payload": payload,
        # Consent is the bakery's; what else the commit was checked for is not asked again, and nothing is merged.
        "auto_merge": False,
        "required_contexts": [],
        "transient_environment": False,
        "production_environment": label.production,
    }
    made: Mapping[str, Any] = _surely(
        lambda: github.create_deployment(about.repository, body), lambda: _shown(github, about).get(label.name)
    )
    return made


def _set(github: GitHub, about: Subject, row: Mapping[str, Any], label: Label) -> None:
    state, line = _short(label.state)
    body = {"state": state, "description": line} | ({"log_url": label.page} if label.page else {})
    _surely(
        lambda: github.set_deployment_status(about.repository, row["id"], body),
        lambda: _now(github, about, row) == (state, line),
    )


def _inactive(github: GitHub, about: Subject, row: Mapping[str, Any]) -> None:
    body = {"state": "inactive", "description": "another registration took its place"}
    github.set_deployment_status(about.repository, row["id"], body)


def _now(github: GitHub, about: Subject, row: Mapping[str, Any]) -> tuple[str, str] | None:
    """The state and the description that a deployment shows."""
    status = github.deployment_status(about.repository, row["id"])
    return (str(status["state"]), str(status.get("description") or "")) if status else None


def _surely(do: Callable[[], Any], done: Callable[[], Any]) -> Any:
    """Create something: where it is not sure that GitHub did, look, and try once more if not."""
    try:
        return do()
    except Refused as refused:
        if refused.findings[0].rule not in (REFUSED, UNREACHABLE):
            raise
        return done() or do()


def _short(state: tuple[str, str]) -> tuple[str, str]:
    line = visible(" ".join(state[1].split()))
    return state[0], line if len(line) <= MAX_DESCRIPTION else f"{line[: MAX_DESCRIPTION - 1]}…"


def _line(refusal: Refusal) -> str:
    return f"{refusal.id}: {refusal.message}"


def _write(github: GitHub, about: Subject, text: str) -> None:
    """Put the one text into the release, or the one comment on the pull request; nothing else of either changes."""
    if about.event == "release":
        release = github.release(about.repository, about.version)
        if release is None:
            return  # taken back meanwhile
        before = str(release.get("body") or "")
        after = insert(before, text)
        if after != before:
            github.update_release(about.repository, int(release["id"]), body=after)
    elif about.pull_request:
        github.comment(about.repository, about.pull_request, MARKER, text)


def insert(body: str, text: str) -> str:
    """A release's text with ours in it: in the place of our last, or at the end; all else stays as it is."""
    if _SECTION.search(body):
        return _SECTION.sub(lambda _: text, body, count=1)
    return f"{body}\n\n{text}" if body.strip() else text


def section(prefect: Prefect | None, labels: Sequence[Label]) -> str:
    """The one text for people: a row for each label, and what did not go well with its last words."""
    lines = ["### Datasets", "", "| bakery and label | state | dataset |", "|---|---|---|"]
    for label in labels:
        state, line = _short(label.state)
        targets = [run.target for run in label.runs]
        more = f" and {len(targets) - 3} more" if len(targets) > 3 else ""
        where = "<br>".join(code(target) for target in targets[:3]) + more
        lines.append(f"| {code(label.name)} | {_SAY.get(state, '')} {sentence(line)} | {where} |")
    told = 0
    for label in labels:
        if label.refusals:
            lines += ["", f"**Refused at {code(label.name)}**", ""]
            lines += [
                f"- **{escape(item.id)}**: {sentence(item.message)}\n"
                f"  **Fix:** {code(item.fix)} · **Who:** {escape(item.who)}"
                for item in label.refusals
            ]
        bad = [run for run in label.runs if run.ended and not run.succeeded]
        shown, rest = bad[: MAX_TOLD - told], len(bad) - (MAX_TOLD - told)
        told += len(shown)
        if prefect:
            lines += [part for run in shown for part in _told(prefect, label, run)]
        if rest > 0:
            lines += ["", f"… and {rest} more at {code(label.name)}."]
    # Nobody's log may end the text that we replace, or begin another.
    body = "\n".join(lines).replace("<!--", "<! --")
    return f"{MARKER}\n{body}\n{END}"


def _told(prefect: Prefect, label: Label, run: Watched) -> list[str]:
    """A run that did not end well: the task that failed, the last lines of its log, and what to do."""
    task = prefect.failed_task(run.id)
    said = [line[:MAX_LINE] for message in prefect.last_logs(run.id) for line in message.splitlines()][-MAX_LINES:]
    where = f" in the task {code(task)}" if task else ""
    return [
        "",
        f"**{escape(run.name)}** at {code(label.name)} {escape(run.label.lower())}{where}: {escape(run.message)}",
        *(["", details("The last lines of its log", block("\n".join(said)))] if said else []),
        "",
        f"{_advice(run)} [All of its log]({prefect.page(run.id)})",
    ]


def _advice(run: Watched) -> str:
    recipe, version = run.tags.get("recipe", ""), run.tags.get("version", "")
    ref = f"the tag {code(version)}" if run.tags.get("event") == "release" else "the default branch"
    again = f"start the workflow *Register* under Actions, with the recipe {code(recipe)} and {ref}"
    match run.state:
        case "CRASHED":
            operators = f"the operators of {code(str(run.tags.get('bakery')))}"
            return f"Its worker or machine went away. To run it again, {again}; if it happens twice, tell {operators}."
        case "CANCELLED":
            return f"Somebody cancelled it. To run it again, {again}."
        case _:
            return f"The dataset is as it was before. Mend the recipe; or, to run the same again, {again}."
