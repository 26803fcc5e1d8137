"""The template's life in an organisation: each feedstock on GitHub gets a branch and a pull request.

GitHub itself remembers how far a run came. A branch is pushed whole and before its pull request is opened; so the same
command, run again after a kill at any moment, finds what is there and goes on. No branch is ever forced: an open pull
request of an earlier version gets the newer one as a further commit, on top of whatever people have added to it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .findings import Finding, Refused, Who, rule
from .git import Repository, clone_url
from .github import NOT_FOUND, GitHub
from .lifecycle import (
    BRANCH,
    Merged,
    Outcome,
    Recorded,
    State,
    committed,
    guarded,
    merge,
    parsed,
    recorded,
    standing,
    together,
)
from .markdown import block, code, details, escape
from .meta import ANSWERS
from .report import SUMMARY_ROWS
from .report import finding as finding_item
from .template import CHECK_WORKFLOW, OWN_CHECK, Template, same_place

NO_WORKFLOWS = rule("token-without-workflows", "An update changes files in .github/workflows/.", who=Who.ORGANISATION)
OTHER_TEMPLATE = rule("template-other", "An update compares two versions of one template.", who=Who.MAINTAINER)
ARCHIVED = rule("feedstock-archived", "Nothing can be pushed to an archived repository.", who=Who.MAINTAINER)
NO_ANSWERS = rule("feedstock-not-generated", "An update repeats the recorded answers.", who=Who.MAINTAINER)
CANARY = rule("canary-failed", "The first feedstocks show what an update does to all.", who=Who.ORGANISATION)

NAME = re.compile(r"[A-Za-z0-9](?:-?[A-Za-z0-9])*/(?:\*|(?!\.{1,2}\Z)[A-Za-z0-9._-]+)", re.ASCII)
"""``owner/name``, or ``owner/*`` for all of an owner's."""
NEEDS = "Contents, Pull requests and Workflows: write"
READS, WRITES = 2, 1
"""Requests for one feedstock that is to be updated: two that read and one that writes."""
MAX_BODY = 60_000
"""Characters of a pull request; GitHub takes 65,536."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Feedstock:
    """A feedstock on GitHub, as its default branch is."""

    name: str
    branch: str
    now: Recorded


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at GitHub found."""

    feedstocks: tuple[Feedstock, ...]
    refused: tuple[Outcome, ...]
    others: int
    """Repositories of an organisation that are no feedstocks, or archived."""


def find(client: GitHub, names: Sequence[str], *, jobs: int, say: Say) -> Found:
    """The feedstocks among repositories, by name; nothing is cloned.

    ``owner/*`` stands for all of an owner's, of which those that are no feedstocks are passed over. Raises
    :class:`Refused` if there is no such owner.
    """
    rows: dict[str, tuple[dict[str, Any] | None, bool]] = {}
    for name in names:
        owner, _, repository = name.partition("/")
        if repository == "*":
            listed = client.repositories(owner)
            rows |= {row["full_name"]: (row, False) for row in listed if row["full_name"] not in rows}
            say(f"{owner} has {len(listed)} repositories")
        else:
            rows[name] = (None, True)

    def look(name: str) -> Feedstock | Outcome | None:
        row, named = rows[name]
        return guarded(lambda: _look(client, name, row, named), lambda found: _refused(name, found))

    feedstocks: dict[str, Feedstock] = {}
    refused, others = [], 0
    for number, found in enumerate(together(look, sorted(rows), jobs, _stop(client)), start=1):
        if isinstance(found, Feedstock):
            feedstocks[found.name.lower()] = found
        elif isinstance(found, Outcome):
            refused.append(found)
        else:
            others += 1
        if number % 100 == 0:
            say(f"looked at {number} of {len(rows)}")
    return Found(tuple(feedstocks[name] for name in sorted(feedstocks)), tuple(refused), others)


def _look(client: GitHub, name: str, row: dict[str, Any] | None, named: bool) -> Feedstock | None:
    if named:
        row = client.repository(name)
        if row is None:
            fix = "check the spelling, and that the token may see it"
            raise Refused(NOT_FOUND.at(None, f"GitHub shows no repository called {name}", fix))
    assert row is not None  # noqa: S101 - a listed repository has its row
    name = str(row["full_name"])
    if row["archived"] or row.get("disabled"):
        if named:
            raise Refused(ARCHIVED.at(None, f"{name} is archived", "unarchive it, or leave it as it is"))
        return None
    text = client.file(name, ANSWERS)
    if text is None:
        if named:
            message = f"{name} has no {ANSWERS} on its default branch"
            raise Refused(NO_ANSWERS.at(None, message, "generate the feedstock from the template"))
        return None
    return Feedstock(name, str(row["default_branch"]), parsed(text, f"{name}/{ANSWERS}"))


def sort(feedstocks: Sequence[Feedstock], template: Template, named: Sequence[str]) -> Iterator[Feedstock | Outcome]:
    """Each feedstock that is to be updated, and the outcome of each other one.

    A feedstock of another template is passed over, and refused only if it was named.
    """
    for feedstock in feedstocks:
        if same_place(feedstock.now.source) not in template.addresses:
            if feedstock.name.lower() in {name.lower() for name in named}:
                message = f"{feedstock.name} comes from {feedstock.now.source}, not from {min(template.addresses)}"
                fix = "update it in a call of its own"
                yield _refused(feedstock.name, (OTHER_TEMPLATE.at(feedstock.now.place, message, fix),))
            continue
        try:
            state = standing(feedstock.now, template)
        except Refused as refused:
            yield _refused(feedstock.name, refused.findings)
            continue
        yield Outcome(feedstock.name, state, feedstock.now.version) if state else feedstock


def check_token(client: GitHub, job_token: str | None) -> None:
    """Raise :class:`Refused` where it can be known beforehand that the token may not push workflows.

    ``job_token`` is the one that GitHub gives to every job of a workflow.
    """
    fix = f"use the token of a GitHub App with {NEEDS}; docs/organisations.md says how"
    if not client.token or client.token == job_token:
        held = "there is only the workflow's own GITHUB_TOKEN" if job_token else "there is no GITHUB_TOKEN"
        raise Refused(NO_WORKFLOWS.at(None, f"{held}, which may not push files in .github/workflows/", fix))
    client.budget()
    if client.scopes is not None and "workflow" not in re.split(r"[,\s]+", client.scopes):
        fix = "give it the scope: `gh auth refresh --scopes workflow`"
        raise Refused(NO_WORKFLOWS.at(None, "the token lacks the scope `workflow`", fix))


def update(
    client: GitHub, feedstocks: Sequence[Feedstock], template: Template, *, server: str, dry_run: bool, jobs: int
) -> Iterator[Outcome]:
    """Bring each feedstock its branch and its pull request, several at a time; an outcome for each, in their order.

    Ends early only where the token turns out to be one that may push no workflow, as every other push would fail too.
    """

    def one(feedstock: Feedstock) -> Outcome:
        return guarded(
            lambda: _update(client, feedstock, template, server, dry_run),
            lambda found: _refused(feedstock.name, found),
        )

    for outcome in together(one, feedstocks, jobs, _stop(client)):
        yield outcome
        if any(finding.rule is NO_WORKFLOWS for finding in outcome.findings):
            return


def _stop(client: GitHub) -> Callable[[], None]:
    return client.pace.stop if client.pace else lambda: None


def _refused(name: str, findings: tuple[Finding, ...]) -> Outcome:
    return Outcome(name, State.REFUSED, findings=findings)


def _update(client: GitHub, feedstock: Feedstock, template: Template, server: str, dry_run: bool) -> Outcome:
    name, owner = feedstock.name, feedstock.name.split("/")[0]
    pull = _open_pull(client, name)
    branch = pull["head"]["ref"] if pull else f"{BRANCH}{template.version}"
    if pull and _marker(template) in (
        pull["body"] or ""
    ):  # written last: the branch is there, and nothing is left to do
        return Outcome(name, State.WAITING, template.version, branch, page=pull["html_url"], commit=pull["head"]["sha"])
    with tempfile.TemporaryDirectory(prefix="feedstock-update-") as scratch:
        repository = Repository(Path(scratch), client.token, server)
        url = clone_url(server, name)
        repository.run("init", "--quiet", "--bare")
        specs = [f"+refs/heads/{spec}:refs/heads/{spec}" for spec in (feedstock.branch, f"{BRANCH}*")]
        repository.run("fetch", "--quiet", "--depth", "1", "--no-tags", "--", url, *specs)
        default, there = (repository.resolve(f"refs/heads/{ref}") or "" for ref in (feedstock.branch, branch))
        now = recorded(repository, default, f"{name}/{ANSWERS}")
        if state := standing(now, template):  # it was merged since we looked
            return Outcome(name, state, now.version)
        if there and not pull:
            # Pushed by a run that was stopped before its pull request; or somebody has closed that one.
            closed = client.pulls(name, state="closed", head=f"{owner}:{branch}")
            said_no = next((old for old in closed if old["head"]["sha"] == there), None)
            if said_no:
                return Outcome(name, State.DECLINED, template.version, branch, page=said_no["html_url"])
        shown = merge(repository, default, now, template)
        left = tuple(conflict.path for conflict in shown.conflicts)
        if dry_run:
            page = pull["html_url"] if pull else ""
            return Outcome(name, State.PLANNED, template.version, branch, shown.files, left, page=page)
        head = there
        if not there:
            head = committed(repository, shown, default, template)
        elif standing(on_branch := recorded(repository, there, f"{name}/{ANSWERS}"), template) is None:
            head = committed(repository, merge(repository, there, on_branch, template), there, template)
        if head != there:
            _push(repository, url, head, branch)
    title, body = f"Update the template to {template.version}", describe(template, shown)
    if pull is None:
        pull = client.create_pull(name, head=f"{owner}:{branch}", base=feedstock.branch, title=title, body=body)
    else:
        client.update_pull(name, pull["number"], title=title, body=body)
    page = str(pull["html_url"])
    return Outcome(name, State.UPDATED, template.version, branch, shown.files, left, page=page, commit=head)


def _open_pull(client: GitHub, name: str) -> dict[str, Any] | None:
    """The open pull request of an update, whichever version it is for; a fork's does not count."""
    for pull in client.pulls(name, state="open"):
        home = pull["head"]["repo"]
        if pull["head"]["ref"].startswith(BRANCH) and home and home["full_name"].lower() == name.lower():
            return pull
    return None


def _push(repository: Repository, url: str, commit: str, branch: str) -> None:
    try:
        repository.run("push", "--quiet", "--", url, f"{commit}:refs/heads/{branch}")
    except Refused as refused:
        said = refused.findings[0].message
        if "refusing to allow" in said and "workflow" in said:
            fix = f"use the token of a GitHub App with {NEEDS}; docs/organisations.md says how"
            raise Refused(NO_WORKFLOWS.at(None, said, fix)) from None
        raise


def _marker(template: Template) -> str:
    return f"<!-- feedstock update {template.commit} -->"


def describe(template: Template, merged: Merged) -> str:
    """What the pull request says: the changelog, the files, and the lines that are left to a person."""
    lines = [
        f"The template has moved from {code(merged.since)} to {code(template.version)}; this brings it here.",
        "",
        "**What is new**",
        "",
        *(f"- {escape(entry)}" for entry in template.changes(merged.old)),
        "",
        f"**{len(merged.files)} files change**",
        "",
        *(f"- {code(name)}" for name in merged.files),
    ]
    if merged.conflicts:
        lines += [
            "",
            "**Left to you:** what was changed here and in the template is as it was here. Take over what you want by",
            "a commit on this branch.",
        ]
    for conflict in merged.conflicts:
        lines += ["", f"- {code(conflict.path)}", ""]
        if conflict.text:
            lines.append(details("both sides", block("\n".join(_hunks(conflict.text)), "")))
    body = "\n".join(lines)
    if len(body) > MAX_BODY:
        body = body[:MAX_BODY].rsplit("\n", 1)[0] + "\n\n… and more: the commit's message has all of it."
    return f"{_marker(template)}\n{body}\n"


def _hunks(text: str) -> Iterator[str]:
    """The lines between the markers of a file in conflict, with the markers."""
    inside = False
    for line in text.splitlines():
        inside = inside or line.startswith("<<<<<<< ")
        if inside:
            yield line
        inside = inside and not line.startswith(">>>>>>> ")


def summary(version: str, outcomes: Sequence[Outcome], expected: int, against: Sequence[Finding]) -> str:
    """The run in Markdown: what there is to look at first, then what is as it should be."""
    lines = [f"### Template {code(version)}", ""]
    shown = [outcome for outcome in outcomes if outcome.state not in (State.CURRENT, State.AHEAD)]
    if shown:
        lines += ["| feedstock | state | pull request | left to its maintainers |", "|---|---|---|---|"]
    for outcome in sorted(shown, key=lambda outcome: outcome.state is not State.REFUSED)[:SUMMARY_ROWS]:
        left = ", ".join(map(code, outcome.conflicts))
        lines.append(f"| {escape(outcome.name)} | {outcome.state} | {outcome.page} | {left} |")
    if len(shown) > SUMMARY_ROWS:
        lines.append(f"| … and {len(shown) - SUMMARY_ROWS} more | | | |")
    lines += ["", *(finding_item(item) for outcome in shown for item in outcome.findings), *map(finding_item, against)]
    lines += ["", f"{len(outcomes) - len(shown)} need nothing."]
    if len(outcomes) < expected:
        lines.append(f"Stopped: {expected - len(outcomes)} stay as they are.")
    return "\n".join(lines)


def watch(
    client: GitHub,
    canaries: Sequence[Outcome],
    *,
    seconds: float,
    every: float,
    wait: Callable[[float], None],
    say: Say,
) -> tuple[Finding, ...]:
    """Wait until every check of the canaries' pull requests has ended; what stands against going on.

    Checks are listed one after the other once a branch is pushed, and an early one may have passed before the others
    are there. So a feedstock's own check has to be among them; of a feedstock that has none, two looks must find the
    same. A pull request that comes to no verdict within ``seconds`` stands against going on too: nobody would know.
    """
    open_ones = {canary.name: canary for canary in canaries if canary.commit}
    checked = {name for name, one in open_ones.items() if client.file(name, CHECK_WORKFLOW, one.commit) is not None}
    seen: dict[str, dict[str, str]] = {}
    findings: list[Finding] = []
    waited = 0.0
    while open_ones:
        for name, canary in list(open_ones.items()):
            before, checks = seen.get(name), client.checks(name, canary.commit)
            seen[name] = checks
            listed = OWN_CHECK in checks if name in checked else checks == before
            failed = sorted(check for check, state in checks.items() if state == "failure")
            if failed:
                message = f"{', '.join(failed)} failed on {canary.page}"
                findings.append(CANARY.at(None, message, "mend the template or this feedstock, then run it again"))
            elif not checks or not listed or "pending" in checks.values():
                continue
            del open_ones[name]
            say(f"{name}: {'failed' if failed else 'every check has passed'}")
        if findings or not open_ones:
            break
        if waited >= seconds:
            for name, canary in open_ones.items():
                message = f"{name}: no verdict within {seconds / 60:.0f} minutes on {canary.page}"
                if name in checked and OWN_CHECK not in seen[name]:
                    message += f", where `{OWN_CHECK}` has not appeared"
                findings.append(CANARY.at(None, message, "see why its checks do not end, then run it again"))
            break
        if waited == 0.0:
            say(f"waiting for the checks of {len(open_ones)} canaries")
        wait(every)
        waited += every
    return tuple(findings)
