"""`feedstock label`."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, cast, get_args

import click

from .. import git, meta, plan, report, trigger
from ..bakery import UNKNOWN, Bakeries, is_bakery_id
from ..findings import Refused, Severity, did_you_mean, text
from ..git import NOT_A_REPOSITORY, Repository
from ..github import NOT_FOUND, GitHub, token_of
from ..labels import ALL, explain, request, state, words
from ..labels.audit import Audit, Live, audit, without_taken
from ..labels.consent import OTHER_REPOSITORY
from ..meta import Event, MetaFile, Resources
from ..models import shown
from ..prefect import Prefect
from ..yaml_file import read_yaml
from . import EXIT_PARTLY, EXIT_REFUSED
from .options import Needs, bakeries_option, folder_option, read_bakeries


@click.group("label")
def command() -> None:
    """Ask for a bakery's label, grant it, explain and audit.

    A feedstock runs at a bakery where both have consented: the feedstock asks in its meta.yaml, the bakery grants in
    bakeries/BAKERY/grants.
    """


@command.command("explain")
@click.argument("feedstock")
@click.argument("bakery")
@click.argument("label")
@click.option(
    "--event", type=click.Choice(["release", "merge"]), default="release", show_default=True, help="On which event."
)
@click.option("--recipe", "recipes", multiple=True, help="A recipe; may be repeated. [default: all of them]")
@click.option("--repository-id", type=click.IntRange(min=1), help="GitHub's id of the repository. [default: asked]")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
@bakeries_option
def explain_label(
    feedstock: str,
    bakery: str,
    label: str,
    event: Event,
    recipes: tuple[str, ...],
    repository_id: int | None,
    form: str,
    bakeries_folder: Path | None,
) -> int:
    """Explain whether a feedstock may use a label: every condition, and the one thing that would change it.

    FEEDSTOCK is a clone's folder, or `owner/name` on GitHub. The answer is made by the code that registers. Where
    PREFECT_API_URL is set, Prefect is asked too whether another repository has the feedstock's name.

    Exit status: 0 allowed, 1 not allowed, 3 allowed for some recipes.
    """
    bakeries = read_bakeries(bakeries_folder)
    file, asking = _feedstock(feedstock, event, repository_id)
    declared = file.meta.recipes
    listed = tuple(recipe.id for recipe in declared) if isinstance(declared, list) else (ALL,)
    wanted = recipes or listed
    decision = explain(asking, plan.requests(file), bakery, label, wanted, bakeries, _today())
    if not asking.repository_id and any(finding.rule is OTHER_REPOSITORY for finding in decision.findings):
        # Only a grant needs the repository's id, so GitHub is asked only where there is one.
        asking = dataclasses.replace(asking, repository_id=_asked_id(asking.repository))
        decision = explain(asking, plan.requests(file), bakery, label, wanted, bakeries, _today())
    if decision.recipes and os.environ.get("PREFECT_API_URL"):
        with Prefect.from_environment(os.environ, say=_say) as client:
            rows = client.deployments_tagged(f"feedstock:{asking.feedstock}")
            (decision,) = without_taken(asking, [decision], rows, bakeries, _today())
    subject = f"{asking.repository} at {bakery}, label {label}, on {event}"
    if form == "json":
        click.echo(json.dumps(words.explained_json(subject, decision, wanted), indent=2, ensure_ascii=False))
    else:
        click.echo(words.explained(subject, decision, wanted))
    if not decision.recipes:
        return EXIT_REFUSED
    return 0 if decision.recipes == wanted else EXIT_PARTLY


def _feedstock(feedstock: str, event: Event, repository_id: int | None) -> tuple[MetaFile, trigger.Trigger]:
    """The meta.yaml of a feedstock here or on GitHub, and the trigger that its event would be."""
    folder = Path(feedstock)
    if folder.is_dir():
        asking = trigger.suppose(event, folder, os.environ)
        file = meta.read(folder, repository=asking.repository)
        return file, dataclasses.replace(asking, repository_id=repository_id or asking.repository_id)
    with GitHub.from_environment(os.environ) as client, tempfile.TemporaryDirectory() as scratch:
        named = feedstock.count("/") == 1
        known: dict[str, Any] | None = {"id": repository_id, "full_name": feedstock} if repository_id else None
        repository = (known or client.repository(feedstock)) if named else None
        content = client.file(feedstock, f"{meta.FOLDER}/{meta.FILE}") if repository else None
        if repository is None or content is None:
            message = f"there is no folder and no feedstock on GitHub called {feedstock}"
            raise Refused(NOT_FOUND.at(None, message, "name a clone's folder, or `owner/name`"))
        copy = Path(scratch) / meta.FOLDER / meta.FILE
        copy.parent.mkdir()
        copy.write_text(content, encoding="utf-8")
        name = str(repository["full_name"])
        file = meta.read(Path(scratch), repository=name)
    mode: trigger.Mode = "complete" if event == "release" else "update"
    return file, trigger.Trigger(name, int(repository["id"]), "https://github.com", "", event, mode, "", actor="")


def _asked_id(name: str) -> int:
    """GitHub's id of a repository; 0 where GitHub does not say, which the condition that misses it then says."""
    try:
        with GitHub.from_environment(os.environ, patience=5) as client:
            return int((client.repository(name) or {}).get("id", 0))
    except Refused as refused:
        click.echo(text(refused.findings[0]), err=True)
        return 0


@command.command("audit")
@click.argument("bakery", required=False)
@click.option("--fix", is_flag=True, help="Pause what is live beyond the grants, and cancel its waiting runs.")
@click.option("--yes", is_flag=True, help="Let --fix do so without asking.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "markdown"]), default="table", help="How to print it."
)
@bakeries_option
def audit_labels(bakery: str | None, fix: bool, yes: bool, form: str, bakeries_folder: Path | None) -> int:
    """List who may run what until when, and what is live in Prefect beyond that; for one BAKERY or all.

    Asks the Prefect that PREFECT_API_URL names; without one only the grants are listed. --fix says what it would do and
    asks; where nobody can answer it does nothing without --yes. Runs that have begun go on.

    Exit status: 0 if nothing is beyond the grants (any more), 1 otherwise.
    """
    if yes and not fix:
        raise click.UsageError("--yes belongs to --fix")
    bakeries = read_bakeries(bakeries_folder)
    if bakery is not None:
        bakeries.read(bakery)
    if not os.environ.get("PREFECT_API_URL"):
        if fix:
            raise click.UsageError("--fix needs PREFECT_API_URL")
        click.echo("PREFECT_API_URL is not set: only the grants are listed", err=True)
        found = audit(bakeries, None, (), _today(), bakery)
    else:
        with Prefect.from_environment(os.environ, say=_say) as client:
            found = _audited(client, bakeries, bakery)
            if fix and _mend(client, [row for row in found.live or () if row.drifted], yes):
                found = _audited(client, bakeries, bakery)
    if form == "json":
        click.echo(json.dumps(words.audited_json(found), indent=2, ensure_ascii=False))
    elif form == "markdown":
        click.echo(words.audited_markdown(found))
    else:
        click.echo(words.audited(found))
        for finding in [*found.findings, *(item for row in found.live or () if row.drifted for item in row.findings)]:
            click.echo(text(finding), err=True)
    wrong = any(row.drifted for row in found.live or ())
    return EXIT_REFUSED if wrong or any(item.severity is Severity.ERROR for item in found.findings) else 0


def _audited(client: Prefect, bakeries: Bakeries, bakery: str | None) -> Audit:
    return audit(bakeries, client.all_deployments(), client.waiting_runs(), _today(), bakery)


def _mend(client: Prefect, drifted: list[Live], yes: bool) -> bool:
    """Pause what is beyond the grants and cancel the runs that wait for it, if somebody wants that; whether it did."""
    if not drifted:
        return False
    for row in drifted:
        runs = f", and cancels {len(row.waiting)} waiting: {', '.join(name for _, name in row.waiting)}"
        _say(f"--fix pauses {row.name}{runs if row.waiting else ''}")
    if not yes and not (sys.stdin.isatty() and click.confirm("Do it?", err=True)):
        _say("nothing was changed; `--fix --yes` does it without asking")
        return False
    for row in drifted:
        client.pause_deployment(row.id)
        _say(f"paused {row.name}")
        for run, name in row.waiting:
            client.cancel_run(run)
            _say(f"cancelled the run {name} of {row.name}")
    return True


@command.command("state")
@click.argument("pull", type=click.IntRange(min=1), required=False)
@click.option("--head", default="", help="The open pull request from here instead, as `owner:branch`.")
@click.option("--repository", envvar="GITHUB_REPOSITORY", required=True, help="`owner/name`. [$GITHUB_REPOSITORY]")
@click.option("--publish", is_flag=True, help="Write the pull request's comment and set its check.")
def state_of(pull: int | None, head: str, repository: str, publish: bool) -> int:
    """Tell who has consented to a pull request that touches labels, who has not, and what happens on merge.

    Exit status: 0 consented or none of its business, 1 otherwise; always 0 with --publish, where the check tells.
    """
    if bool(pull) == bool(head):
        raise click.UsageError("name a pull request by its number, or by --head")
    agreed = True
    with GitHub.from_environment(os.environ, say=_say) as client:
        numbers = [pull] if pull else [int(row["number"]) for row in client.open_pulls(repository, head)]
        for number in numbers:
            found = state.read(client, repository, number)
            page = state.publish(client, found) if publish else ""
            verdict, why = found.check
            agreed = agreed and verdict == "success"
            click.echo(f"{repository}#{number}: {verdict}: {why}")
            if page:
                click.echo(page)
            for finding in (*found.findings, *found.notes):
                click.echo(text(finding), err=True)
    if not numbers:
        click.echo(f"no open pull request of {repository} comes from {head}")
    return 0 if publish or agreed else EXIT_REFUSED


_OPTIONS = (
    click.option(
        "--recipes", multiple=True, help="Recipes to add, separated by commas. [default: as granted, else all of them]"
    ),
    click.option(
        "--on", multiple=True, help="Events to add: release, merge or both. [default: as asked for, else release]"
    ),
    click.option(
        "--resources", type=Needs(), default="", metavar="MEMORY[,CPU]", help="What one run needs: `8 GiB,2`."
    ),
    click.option("--target", default="default", show_default=True, help="Which of the bakery's targets to write to."),
    click.option("--expires", type=click.DateTime(["%Y-%m-%d"]), help="When it ends. [default: in a year]"),
    click.option("--reason", default="", help="Why, for those who review it."),
    click.option("--repository-id", type=click.IntRange(min=1), help="GitHub's id of the feedstock. [default: asked]"),
)


def _wish_options(function: Any) -> Any:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@command.command("request")
@click.argument("bakery")
@click.argument("label")
@folder_option
@click.option("--forge", envvar="FEEDSTOCK_FORGE", help="`owner/name`, or a clone. [default: the template's]")
@_wish_options
def request_label(bakery: str, label: str, folder: Path, forge: str | None, **wish: Any) -> None:
    """Ask a bakery for a label, from a feedstock.

    Makes both halves: the request in meta.yaml and the grant in the forge, as two branches, and with GITHUB_TOKEN as
    two linked pull requests. Asking again finds the open ones, and renews a grant that ends soon. What stands is only
    added to: to ask for less, edit the files. No working tree is touched.
    """
    here = _clone(folder)
    _refuse_id(bakery)
    _handshake(here, here, forge or _forge_of(folder), bakery, label, here.name, wish)


@command.command("offer")
@click.argument("bakery")
@click.argument("label")
@click.argument("feedstock")
@click.option(
    "--forge",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    help="The forge's clone. [default: this folder]",
)
@_wish_options
def offer_label(bakery: str, label: str, feedstock: str, folder: Path, **wish: Any) -> None:
    """Offer a bakery's label to a feedstock, from the forge.

    FEEDSTOCK is `owner/name`, or a clone's folder. Makes the same two halves as `feedstock label request`.
    """
    here = _clone(folder)
    request.refuse_unknown(here, here.name or str(folder), bakery)
    other = _other(here, feedstock, "name your clone's folder instead")
    name = Repository(Path(feedstock)).name if Path(feedstock).is_dir() else feedstock
    _handshake(here, other, str(folder), bakery, label, name, wish)


def _handshake(
    here: Repository, feedstock: Repository, forge: str, bakery: str, label: str, name: str | None, said: dict[str, Any]
) -> None:
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    if name is None:
        message = f"{feedstock.folder} has no remote `origin`, so nobody knows which repository asks"
        raise Refused(NOT_A_REPOSITORY.at(None, message, "git remote add origin URL"))
    limits: Resources = said["resources"]
    with GitHub.from_environment(os.environ, say=_say) as client:
        if not Path(forge).is_dir():
            _refuse_unknown(client, forge, bakery)
        granting = _other(here, forge, "name a clone of it with --forge CLONE")
        forge_name = granting.name or forge
        wish = request.Wish(
            repository=name,
            repository_id=said["repository_id"] or _repository_id(client, name),
            bakery=bakery,
            label=label,
            recipes=_words(said["recipes"]),
            events=_events(said["on"]),
            memory=limits.memory,
            cpu=limits.cpu,
            target=said["target"],
            reason=said["reason"],
            expires=said["expires"].date() if said["expires"] else None,
        )
        made = request.prepare(feedstock, granting, forge_name, wish, _today())
        if not any(half.changes for half in made.halves):
            told = f"both have consented already: see feedstock label explain {name} {bakery} {label}"
        elif client.token:
            told = "\n".join(request.propose(client, made, server, _say))
        elif os.environ.get("GITHUB_ACTIONS") == "true":
            told = request.page(made, server)
        else:
            told = "\n".join(request.instructions(made, server))
    click.echo(told)
    report.summarise(told, os.environ)


def _words(said: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for part in said for word in part.split(",") if word.strip()))


def _events(said: tuple[str, ...]) -> tuple[Event, ...]:
    known = _words(said)
    for word in known:
        if word not in get_args(Event):
            raise click.BadParameter(f"`{word}` is no event; write release, merge or both", param_hint="--on")
    return cast(tuple[Event, ...], known)


def _repository_id(client: GitHub, name: str) -> int:
    if os.environ.get("GITHUB_REPOSITORY", "").lower() == name.lower() and (known := trigger.own_id(os.environ)):
        return known
    try:
        return int((client.repository(name) or {}).get("id", 0))
    except Refused as refused:
        click.echo(text(refused.findings[0]), err=True)
        return 0


def _refuse_id(bakery: str) -> None:
    """Raise :class:`Refused` for what no forge could have as a bakery's id, before one is asked."""
    if not is_bakery_id(bakery):
        lower = bakery.lower()
        fix = f"did you mean `{lower}`?" if is_bakery_id(lower) else "write lower-case a-z, digits, `.` and `-`"
        raise Refused(UNKNOWN.at(None, f"there is no bakery {shown(bakery)}", fix))


def _refuse_unknown(client: GitHub, forge: str, bakery: str) -> None:
    """Raise :class:`Refused` for a bakery that the forge lacks: one request, where a clone would take much longer."""
    try:
        ids = client.folder(forge, "bakeries")
    except Refused:
        return  # whatever it is, the clone meets it too
    if ids and bakery not in ids:
        raise Refused(UNKNOWN.at(None, f"{forge} has no bakery {shown(bakery)}", did_you_mean(bakery, ids)))


def _other(here: Repository, named: str, instead: str) -> Repository:
    """The other side's repository: a clone that was named, or one of our own beside the git data of this one."""
    if Path(named).is_dir():
        return _clone(Path(named))
    if not re.fullmatch(r"[A-Za-z0-9-]+/(?!\.{1,2}\Z)[A-Za-z0-9._-]+", named, re.ASCII):
        raise click.UsageError(f"`{named}` is neither a folder nor `owner/name`")
    data = here.run("rev-parse", "--absolute-git-dir").strip()
    mine = _clone(Path(data) / "feedstock-forge" / named)
    try:
        return git.clone(git.clone_url(mine.server, named), mine.folder, token=mine.token, server=mine.server)
    except Refused as refused:
        fix = f"check that {mine.server} can be reached and has {named}, or {instead}"
        raise Refused(*(dataclasses.replace(finding, fix=fix) for finding in refused.findings)) from None


def _clone(folder: Path) -> Repository:
    """A clone here, with what it takes to push."""
    return Repository(folder, token_of(os.environ), os.environ.get("GITHUB_SERVER_URL", "https://github.com"))


def _forge_of(folder: Path) -> str:
    """The forge whose template made this feedstock, as its answers say."""
    answers = folder / meta.ANSWERS
    said = read_yaml(answers).data if answers.exists() else {}
    source = str(said.get("forge") or said.get("_src_path", ""))
    match = re.search(r"([A-Za-z0-9-]+/[A-Za-z0-9._-]+?)(?:\.git)?/?\Z", source.removeprefix("gh:"))
    if Path(source).is_dir() and source:
        return source
    if not match:
        raise click.UsageError("nobody knows which forge to ask: pass --forge OWNER/NAME")
    return match[1]


def _say(line: str) -> None:
    click.echo(line, err=True)


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()
