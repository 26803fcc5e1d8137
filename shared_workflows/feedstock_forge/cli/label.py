"""`feedstock label`."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import tempfile
from pathlib import Path

import click

from .. import meta, plan, trigger
from ..findings import Refused, Severity, text
from ..git import Repository
from ..github import NOT_FOUND, GitHub
from ..labels import ALL, explain, words
from ..labels.audit import audit
from ..meta import Event, MetaFile
from ..prefect import Prefect
from . import EXIT_PARTLY, EXIT_REFUSED
from .options import bakeries_option, read_bakeries


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

    FEEDSTOCK is a clone's folder, or `owner/name` on GitHub. The answer is made by the code that registers.

    Exit status: 0 allowed, 1 not allowed, 3 allowed for some recipes.
    """
    bakeries = read_bakeries(bakeries_folder)
    file, asking = _feedstock(feedstock, event, repository_id)
    declared = file.meta.recipes
    listed = tuple(recipe.id for recipe in declared) if isinstance(declared, list) else (ALL,)
    wanted = recipes or listed
    decision = explain(asking, plan.requests(file), bakery, label, wanted, bakeries, _today())
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
        name = asking.repository
        known = repository_id or asking.repository_id
        if not known and Repository(folder).name:
            try:
                with GitHub.from_environment(os.environ, patience=5) as client:
                    known = int((client.repository(name) or {}).get("id", 0))
            except Refused as refused:
                # Only a grant needs the id; the condition that misses it says so.
                click.echo(text(refused.findings[0]), err=True)
        return file, dataclasses.replace(asking, repository_id=known)
    with GitHub.from_environment(os.environ) as client, tempfile.TemporaryDirectory() as scratch:
        repository = client.repository(feedstock) if feedstock.count("/") == 1 else None
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
    known = repository_id or int(repository["id"])
    return file, trigger.Trigger(name, known, "https://github.com", "", event, mode, "", actor="")


@command.command("audit")
@click.argument("bakery", required=False)
@click.option("--fix", is_flag=True, help="Pause what is live beyond the grants.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "markdown"]), default="table", help="How to print it."
)
@bakeries_option
def audit_labels(bakery: str | None, fix: bool, form: str, bakeries_folder: Path | None) -> int:
    """List who may run what until when, and what is live in Prefect beyond that; for one BAKERY or all.

    Asks the Prefect that PREFECT_API_URL names; without one only the grants are listed.

    Exit status: 0 if nothing is beyond the grants (any more), 1 otherwise.
    """
    bakeries = read_bakeries(bakeries_folder)
    if bakery is not None:
        bakeries.read(bakery)
    if not os.environ.get("PREFECT_API_URL"):
        if fix:
            raise click.UsageError("--fix needs PREFECT_API_URL")
        click.echo("PREFECT_API_URL is not set: only the grants are listed", err=True)
        found = audit(bakeries, None, _today(), bakery)
    else:
        with Prefect.from_environment(os.environ, say=lambda line: click.echo(line, err=True)) as client:
            found = audit(bakeries, client.all_deployments(), _today(), bakery)
            drifted = [row for row in found.live or () if row.drifted]
            if fix and drifted:
                for row in drifted:
                    client.pause_deployment(row.id)
                    click.echo(f"paused {row.name}", err=True)
                found = audit(bakeries, client.all_deployments(), _today(), bakery)
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


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()
