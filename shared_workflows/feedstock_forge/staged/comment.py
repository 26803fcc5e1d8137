"""The one comment of a recipe's pull request: what a reviewer with thirty seconds needs, the rest folded away.

Whatever a stranger wrote goes through :mod:`..markdown`: it can forge neither a heading nor another comment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..findings import Finding, Refused
from ..github import GitHub
from ..markdown import block, code, details, escape
from ..quantities import format_memory, format_size
from ..report import finding as item
from .preview import Ask, FolderPreview, Preview
from .trial import FolderTrial, Trial, Tried
from .turn import CONTEXT

MARKER = "<!-- feedstock-forge: recipe preview -->"
MAX_COMMENT = 60_000
"""GitHub takes 65,536 characters."""
MAX_FINDINGS = 20


def verdict(preview: Preview, trial: Trial | Refused | None) -> tuple[str, str]:
    """The state of the check, and a line that says why."""
    wrong = [*preview.findings, *(finding for folder in preview.folders for finding in folder.errors)]
    if wrong:
        return "failure", f"to be mended: {', '.join(sorted({finding.id for finding in wrong}))}"
    if not preview.folders:
        return "success", "this pull request adds no recipe"
    if trial is None:
        return "pending", "the recipes are being tried"
    if isinstance(trial, Refused):
        return "failure", trial.findings[0].message
    untried = [folder.folder for folder in preview.folders if trial.of(folder.folder) is None]
    failed = [name for name in (folder.folder for folder in preview.folders) if not _passed(trial, name)]
    if untried:
        return "failure", f"not tried: {', '.join(untried)}"
    if failed:
        return "failure", f"the trial run failed: {', '.join(failed)}"
    count = len(preview.folders)
    return "success", f"{count} recipe folder{'s' if count > 1 else ''}: lint and trial run passed"


def _passed(trial: Trial, name: str) -> bool:
    found = trial.of(name)
    return found is not None and found.passed


def comment(preview: Preview, trial: Trial | Refused | None) -> str:
    """The comment, for a pull request that changes recipes."""
    state, why = verdict(preview, trial)
    heading = {"success": "Ready for review", "failure": "To be mended", "pending": "Being checked"}[state]
    lines = [MARKER, f"### {heading}", "", f"{escape(why)} (commit `{preview.commit[:12]}`)"]
    if preview.findings:
        lines += ["", *(item(finding) for finding in preview.findings)]
    if isinstance(trial, Refused) and why == trial.findings[0].message:
        lines += ["", *(item(finding) for finding in trial.findings)]
    sections = [
        "\n".join(_folder(folder, trial.of(folder.folder) if isinstance(trial, Trial) else None))
        for folder in preview.folders
    ]
    room = MAX_COMMENT - sum(map(len, lines))
    for number, section in enumerate(sections):
        if len(section) > room:
            lines += ["", f"… and {len(sections) - number} more recipe folders; the log of the check has them."]
            break
        lines += ["", section]
        room -= len(section)
    lines += ["", "Comment `/help` for what you can ask for here."]
    return "\n".join(lines) + "\n"


def _folder(preview: FolderPreview, trial: FolderTrial | None) -> Iterator[str]:
    yield f"#### {code(preview.folder)}"
    yield ""
    if preview.meta:
        meta = preview.meta
        providers = ", ".join(escape(provider.name) for provider in meta.provenance.providers)
        people = ", ".join(f"`@{person.github}`" for person in meta.maintainers)
        yield f"**{escape(meta.title)}**, version {escape(meta.version)}. {escape(meta.description)}"
        yield ""
        yield "| | |"
        yield "|---|---|"
        yield f"| source | {providers}, {code(meta.provenance.license)} |"
        yield f"| maintainers | {people} |"
        for ask in preview.asks or ():
            yield f"| runs at | {_ask(ask)} |"
        if not preview.asks:
            yield "| runs at | no bakery yet: `feedstock label request` asks one |"
        for tried in trial.tried if trial else ():
            yield f"| trial run of {code(tried.recipe)} | {_tried(tried)} |"
    said = [said.finding() for said in (trial.said if trial else [])]
    if findings := _most([*preview.findings, *said]):
        yield ""
        yield from findings
    for tried in trial.tried if trial else ():
        if tried.repr:
            yield ""
            yield details(f"The dataset of {tried.recipe}, as the trial run made it", block(tried.repr))
    if trial and trial.recipes > len(trial.tried):
        yield ""
        yield f"Of {trial.recipes} recipes the first {len(trial.tried)} were tried."
    if preview.files:
        yield ""
        yield details(f"The feedstock that this becomes: {len(preview.files)} files", block("\n".join(preview.files)))


def _most(findings: Sequence[Finding]) -> list[str]:
    shown = [item(finding) for finding in findings[:MAX_FINDINGS]]
    return [*shown, f"- … and {len(findings) - MAX_FINDINGS} more"] if len(findings) > MAX_FINDINGS else shown


def _ask(ask: Ask) -> str:
    # As code: the people are not called before there is something for them to decide.
    people = f" ({', '.join(f'`@{login}`' for login in ask.people)} decide)" if "request" in ask.decides else ""
    events = " and ".join(ask.wish.on)
    return f"{code(f'{ask.wish.id}.{ask.wish.label}')} on {events}: {escape(ask.decides)}{people}"


def _tried(tried: Tried) -> str:
    words = {"completed": "completed", "failed": "**failed**", "stopped": "**stopped at a limit**"}[tried.outcome]
    inputs = f" with {tried.inputs} of {tried.of} inputs" if tried.inputs and tried.of else ""
    took = f"{words}{inputs} in {tried.seconds:.0f} s, {format_memory(tried.memory)} of memory"
    if tried.outcome != "completed" or not tried.stored:
        return took
    stored = f"{took}, {format_size(tried.stored)} stored"
    if (times := tried.full) and times > 1:
        return f"{stored}; all of it would be about {format_size(tried.stored * times)}"
    return stored


def publish(client: GitHub, preview: Preview, trial: Trial | Refused | None) -> str:
    """Write the comment and set the check; returns the comment's page, or nothing where no comment is due."""
    due = preview.folders or preview.findings
    page = client.comment(preview.repository, preview.number, MARKER, comment(preview, trial)) if due else ""
    state, why = verdict(preview, trial)
    client.status(preview.repository, preview.commit, context=CONTEXT, state=state, description=why, url=page)
    return page
