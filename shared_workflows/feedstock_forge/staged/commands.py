"""Commands in comments: every one is answered, and what it does is done for exactly the commit that was looked at.

A comment is a stranger's word. Who wrote it is known by a number that GitHub gives; what it may do is decided by what
stands on GitHub and in the forge at that moment.
"""

from __future__ import annotations

import datetime
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from .. import git, meta
from ..bakery import Bakeries
from ..findings import Finding, Refused, did_you_mean, rule
from ..github import GitHub
from ..markdown import code, escape
from ..meta import FILE, RecipeDict, slug
from ..plan import Plan, PlannedRecipe, Request
from ..report import finding as item
from ..trigger import BAD_PAYLOAD, MAX_PAYLOAD, OTHER_REPOSITORY, Trigger
from ..yaml_file import parse_yaml, read_text
from . import preview
from .folders import path_of
from .trial import MAX_RECIPES
from .turn import CONTEXT, REVIEWERS

UNKNOWN = rule("command-unknown", "A command that nobody knows does nothing, and whoever wrote it should hear that.")
DENIED = rule("command-denied", "A recipe that runs at a bakery takes what is the bakery's, so not everybody may ask.")
UNSEEN = rule(
    "command-commit-unseen",
    "What runs is what was looked at; whoever pushes after a comment must not decide what it runs.",
)
NO_RECIPE = rule("command-recipe-unknown", "A command about a recipe names one of the pull request's.")
NO_CHECK = rule("command-check-missing", "Only a check that was made can be made again.")
CLOSED = rule("command-pull-closed", "What is merged or closed is tried no more.")

CHECK = "check.yml"
EVERYBODY, PEOPLE, OPERATORS = "everybody", "who proposed it, maintainers, operators", "maintainers, operators"

COMMANDS: dict[str, tuple[str, str, str]] = {
    "run-recipe-test": ("[recipe]", "run it at the development bakery, on its first few inputs", OPERATORS),
    "lint": ("", "check the newest commit again", PEOPLE),
    "preview": ("", "check the newest commit again, and bring the comment about it up to date", PEOPLE),
    "explain": ("", "say at which bakeries the recipes would run, and who decides", EVERYBODY),
    "help": ("", "list these", EVERYBODY),
}
"""What a command takes, what it does, and who may give it."""

_COMMAND = re.compile(r"/([A-Za-z][A-Za-z_-]{0,60})(?:[ \t]+([^\r\n]*))?(?=\r?\n|\Z)")


class _Payload(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class _User(_Payload):
    login: str
    id: int
    type: str = "User"


class _Comment(_Payload):
    id: int
    body: str
    user: _User
    created_at: datetime.datetime


class _Issue(_Payload):
    number: int
    pull_request: dict[str, Any] | None = None


class _Repository(_Payload):
    full_name: str
    id: int


class Event(_Payload):
    """An ``issue_comment`` event. https://docs.github.com/en/webhooks/webhook-events-and-payloads#issue_comment"""

    action: str
    issue: _Issue
    comment: _Comment
    repository: _Repository


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it was written."""

    word: str
    argument: str


@dataclass(frozen=True, slots=True)
class BakeryRun:
    """Recipes of one folder to run: what to register, as a plan that was read and not run."""

    trigger: Trigger
    plan: Plan


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command is answered, and what is to be done for it."""

    text: str
    commit: str = ""
    tests: tuple[BakeryRun, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where proposed recipes are tried, and where the run of this very command is to be seen."""

    bakery: str
    label: str
    server: str
    run_page: str


def read(path: Path, repository: str) -> Event | None:
    """The event in a file; ``None`` if there is nothing to answer: no pull request, a bot's comment, an old one edited.

    ``repository`` is the job's own. Raises :class:`Refused` for a payload of another, or none of GitHub's.
    """
    try:
        event = Event.model_validate_json(read_text(path, max_bytes=MAX_PAYLOAD))
    except ValidationError as error:
        what = error.errors(include_url=False)[0]["msg"]
        raise Refused(BAD_PAYLOAD.at(None, f"not an `issue_comment` payload: {what}", "pass GitHub's own")) from None
    if repository and event.repository.full_name.lower() != repository.lower():
        message = f"the payload is of {event.repository.full_name}, the job of {repository}"
        raise Refused(OTHER_REPOSITORY.at(None, message, "let the job act on the event that started it"))
    if event.action != "created" or event.issue.pull_request is None or event.comment.user.type == "Bot":
        return None
    return event


def parse(body: str) -> Command | None:
    """The command in a comment: a word after a slash at its very beginning; ``None`` if it begins otherwise."""
    match = _COMMAND.match(body)
    return Command(match[1].lower().replace("_", "-"), (match[2] or "").strip()) if match else None


def marker(event: Event) -> str:
    """What the answer to a comment begins with."""
    return f"<!-- feedstock-forge: answer to {event.comment.id} -->"


def answer(client: GitHub, event: Event, command: Command, bakeries: Bakeries, place: Place) -> Answer:
    """Decide what becomes of a command; nothing is started yet. Never raises for what is wrong with the command."""
    try:
        return _answer(client, event, command, bakeries, place)
    except Refused as refused:
        lines = [f"### {_title(command)}: no", "", *(item(finding) for finding in refused.findings)]
        return Answer("\n".join(lines), findings=refused.findings)


def _title(command: Command) -> str:
    return code(f"/{command.word}{f' {command.argument}' if command.argument else ''}"[:200])


def _answer(client: GitHub, event: Event, command: Command, bakeries: Bakeries, place: Place) -> Answer:
    if command.word not in COMMANDS:
        known = [f"/{word}" for word in COMMANDS]
        message = f"there is no command `/{command.word}`"
        raise Refused(UNKNOWN.at(None, message, did_you_mean(f"/{command.word}", known)))
    if command.word == "help":
        return Answer(_help(place))
    pull = client.pull(event.repository.full_name, event.issue.number)
    if pull["state"] != "open":
        raise Refused(CLOSED.at(None, "this pull request is not open", "propose a new one"))
    if command.word == "explain":
        return Answer(_explain(client, event, pull, bakeries, place))
    refuse_stranger(client, event, pull, command, bakeries, place)
    if command.word in ("lint", "preview"):
        return _again(client, event, pull, place)
    commit = refuse_unseen(client, event, pull)
    tests = _tests(client, event, commit, command.argument, place)
    names = ", ".join(code(recipe.id) for test in tests for recipe in test.plan.recipes)
    where = code(f"{place.bakery}.{place.label}")
    lines = [f"### {_title(command)}: running", "", f"{names} at {where}, as of commit `{commit[:12]}`, pruned."]
    return Answer("\n".join([*lines, "", f"[Follow it]({place.run_page})"]), commit, tests)


def refuse_stranger(
    client: GitHub, event: Event, pull: Mapping[str, Any], command: Command, bakeries: Bakeries, place: Place
) -> None:
    """Raise :class:`Refused` unless whoever commented may give the command, by their number and at this moment."""
    person, repository = event.comment.user, event.repository.full_name
    allowed = COMMANDS[command.word][2]
    if allowed == PEOPLE and person.id == (pull.get("user") or {}).get("id"):
        return
    role = client.role_of(repository, person.login)
    if role is not None and role[0] in REVIEWERS and role[1] == person.id:
        return
    operators = bakeries.read(place.bakery).bakery.operators
    for operator in operators:
        if person.id == (operator.id or int((client.user(operator.github) or {}).get("id", 0))):
            return
    names = ", ".join(f"`@{operator.github}`" for operator in operators)
    also = "who proposed this, " if allowed == PEOPLE else ""
    fix = f"ask {also}a maintainer of {repository}, or an operator of {place.bakery}: {names.replace('`', '')}"
    raise Refused(DENIED.at(None, f"{person.login} may not give `/{command.word}` here", fix))


def refuse_unseen(client: GitHub, event: Event, pull: Mapping[str, Any]) -> str:
    """The pull request's commit, if it was there when the comment was written. Raises :class:`Refused` if it was not.

    Dates in a commit are whatever its author says. When GitHub itself saw the commit is told by the check's first
    status on it, and by the events of the pull request where the branch went back to an older one.
    """
    repository, commit, asked = event.repository.full_name, str(pull["head"]["sha"]), event.comment.created_at
    times = [_time(row["created_at"]) for row in client.statuses(repository, commit) if row["context"] == CONTEXT]
    forced = [
        _time(row["created_at"])
        for row in client.timeline(repository, event.issue.number)
        if row.get("event") == "head_ref_force_pushed"
    ]
    fix = "look at the commit that stands now, and comment again"
    if not times or min(times) >= asked:
        message = f"the commit {commit[:12]} came after the comment, or its check had not begun"
        raise Refused(UNSEEN.at(None, message, fix))
    if any(time >= asked for time in forced):
        raise Refused(UNSEEN.at(None, "the branch was moved by force after the comment", fix))
    return commit


def refuse_moved(client: GitHub, event: Event, commit: str) -> None:
    """Raise :class:`Refused` if the pull request stands at another commit by now."""
    now = str(client.pull(event.repository.full_name, event.issue.number)["head"]["sha"])
    if now != commit:
        fix = "look at the commit that stands now, and comment again"
        raise Refused(UNSEEN.at(None, f"{now[:12]} was pushed meanwhile; {commit[:12]} was not started", fix))


def _tests(client: GitHub, event: Event, commit: str, argument: str, place: Place) -> tuple[BakeryRun, ...]:
    """What to register, by what the files at the commit say; nothing of them is run or imported."""
    repository, number = event.repository.full_name, event.issue.number
    paths = {str(row["filename"]) for row in client.pull_files(repository, number)}
    names, _ = preview.changed(sorted(paths))
    if findings := preview.whole(names, []):
        raise Refused(*findings)
    tests: list[BakeryRun] = []
    known: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        # From this repository, and so does the bakery: it has the commits of its pull requests, wherever from.
        url = git.clone_url(place.server, repository)
        here = git.fetch(url, commit, Path(scratch), token=client.token, server=place.server)
        for name in names:
            if not here.ask("rev-parse", "--verify", "--quiet", f"{commit}:{path_of(name)}"):
                continue
            path = f"{path_of(name)}/{FILE}"
            declared, findings = meta.check(parse_yaml(here.read(commit, path), Path(path)), name)
            if declared is None:
                raise Refused(*findings)
            ids, dict_object = _ids(declared.recipes, argument)
            known += [name, *(recipe for recipe, _ in ids)]
            chosen = [(recipe, store) for recipe, store in ids if argument in ("", name, recipe)]
            if chosen:
                tests.append(_test(event, commit, name, declared, chosen, dict_object, place))
    if not tests:
        message = f"there is no recipe {code(argument)} in this pull request" if argument else "there is no recipe here"
        raise Refused(NO_RECIPE.at(None, message, did_you_mean(argument, known)))
    count = sum(len(test.plan.recipes) for test in tests)
    if count > MAX_RECIPES:
        message = f"that would be {count} recipes at once; at most {MAX_RECIPES} are run"
        raise Refused(NO_RECIPE.at(None, message, f"name one: `/run-recipe-test {known[1]}`"))
    return tuple(tests)


def _ids(recipes: list[meta.Recipe] | RecipeDict, argument: str) -> tuple[list[tuple[str, meta.Store]], str | None]:
    """The recipes and their stores. Only running code tells the keys of a dict, so there the asker has to."""
    if isinstance(recipes, RecipeDict):
        asked = bool(argument) and meta.is_recipe_id(argument)
        return ([(argument, recipes.store)] if asked else []), recipes.dict_object
    return [(recipe.id, recipe.store) for recipe in recipes], None


def _test(
    event: Event,
    commit: str,
    name: str,
    declared: meta.Meta,
    chosen: Sequence[tuple[str, meta.Store]],
    dict_object: str | None,
    place: Place,
) -> BakeryRun:
    trigger = Trigger(
        repository=event.repository.full_name,
        repository_id=event.repository.id,
        server=place.server,
        commit=commit,
        event="merge",
        mode="complete",
        version=commit,
        actor=event.comment.user.login,
        pull_request=event.issue.number,
        attempt=f"comment-{event.comment.id}",
        folder=path_of(name),
    )
    request = Request(bakery=place.bakery, label=place.label, on=["merge"], target="default")
    plan = Plan(
        repository=trigger.repository,
        commit=commit,
        event=trigger.event,
        mode=trigger.mode,
        version=commit,
        # Its own place among flows and datasets: a proposal takes nobody's name.
        feedstock=slug(f"staged-{event.issue.number}-{name}"[:80]),
        dataset_version=declared.version,
        title=declared.title[:500],
        dict_object=dict_object,
        recipes=[PlannedRecipe(id=recipe) for recipe, _ in chosen],
        stores={recipe: store for recipe, store in chosen if store != "icechunk"},
        bakeries=[request],
    )
    return BakeryRun(trigger, plan)


def _again(client: GitHub, event: Event, pull: Mapping[str, Any], place: Place) -> Answer:
    repository, commit = event.repository.full_name, str(pull["head"]["sha"])
    run = client.newest_run(repository, CHECK, commit)
    if run is None:
        raise Refused(NO_CHECK.at(None, f"no check of {commit[:12]} was ever made", "push a commit"))
    page = f"[follow it]({place.server}/{repository}/actions/runs/{int(run['id'])})"
    if run["status"] != "completed":
        return Answer(f"### The check of `{commit[:12]}` is running already: {page}", commit)
    client.rerun(repository, int(run["id"]))
    return Answer(f"### The check of `{commit[:12]}` runs again: {page}", commit)


def _explain(client: GitHub, event: Event, pull: Mapping[str, Any], bakeries: Bakeries, place: Place) -> str:
    look = preview.look(client, event.repository.full_name, pull, place.server, bakeries)
    lines = [f"### What is asked of bakeries (commit `{look.commit[:12]}`)", ""]
    for folder in look.folders:
        for ask in folder.asks:
            people = ", ".join(f"`@{login}`" for login in ask.people) or "nobody yet"
            wish = code(f"{ask.wish.id}.{ask.wish.label}")
            events = " and ".join(ask.wish.on)
            lines.append(f"- {code(folder.folder)} at {wish} on {events}: {escape(ask.decides)}; decided by {people}")
        if not folder.asks:
            lines.append(f"- {code(folder.folder)} asks for no bakery, so nothing runs until its feedstock does")
    where = code(f"{place.bakery}.{place.label}")
    lines += ["", f"Before the merge nothing runs but at {where}, pruned, when somebody who may asks for it."]
    return "\n".join(lines)


def _help(place: Place) -> str:
    lines = ["### Commands", "", "A comment that begins with one of these is answered.", ""]
    lines += ["| command | does | who may |", "|---|---|---|"]
    lines += [
        f"| {code(f'/{word} {takes}'.strip())} | {does} | {who} |" for word, (takes, does, who) in COMMANDS.items()
    ]
    lines += ["", f"Operators are those of the bakery {code(place.bakery)}, maintainers may write to this repository."]
    return "\n".join(lines)


def _time(stamp: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(stamp)
