"""`feedstock bakery`."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import click

from .. import automations, github
from ..bakery import Bakeries, BakeryFile, unknown_label
from ..findings import Place, Refused, Severity, rule, text
from ..labels import codeowners, grants
from ..prefect import Prefect
from ..quantities import format_duration, format_memory
from . import EXIT_REFUSED
from .options import bakeries_option, read_bakeries

NO_PREFECT = rule("flows-extra-missing", "A worker is Prefect's own program.")
DISPATCH_TOKEN = "FEEDSTOCK_DISPATCH_TOKEN"  # noqa: S105 - the name of a variable
TAKEN = rule("bakery-exists", "A bakery that stands is its operators', and changed by them.")

_NEW = """\
# {id}: what this bakery runs, for whom, and within which limits. Reviewed by its operators (see .github/CODEOWNERS).
description: {description}
operators:
{operators}
work_pool: {{name: {pool}, type: {type}}}
labels:
  # Anybody's recipe on its first few inputs, within narrow limits.
  dev: {{grants: open, prune: required, limits: {{memory: 4 GiB, cpu: 1, runtime: 30 min}}}}
  # Real runs, for feedstocks that the operators have granted: see grants/.
  prod: {{grants: on-request, limits: {{memory: 16 GiB, cpu: 4, runtime: 24 h}}}}
targets:
  default: {{url: {target}}}
"""


@click.group("bakery")
def command() -> None:
    """Describe bakeries, check them and serve one."""


@command.command("list")
@bakeries_option
def list_bakeries(bakeries_folder: Path | None) -> None:
    """List the bakeries and their labels."""
    bakeries = read_bakeries(bakeries_folder)
    for bakery_id in bakeries.ids():
        file = bakeries.read(bakery_id)
        labels = ", ".join(f"{name} ({spec.grants})" for name, spec in file.bakery.labels.items())
        click.echo(f"{bakery_id}: {labels}\n    {file.bakery.description}")


@command.command("show")
@click.argument("bakery")
@bakeries_option
def show(bakery: str, bakeries_folder: Path | None) -> None:
    """Show one bakery: its pool, labels, limits, targets and operators."""
    file = read_bakeries(bakeries_folder).read(bakery)
    described = file.bakery
    click.echo(f"{bakery}: {described.description}")
    click.echo(f"operators: {', '.join(operator.github for operator in described.operators)}")
    click.echo(f"work pool: {described.work_pool.name} ({described.work_pool.type})")
    for name, spec in described.labels.items():
        limits = [
            format_memory(spec.limits.memory) if spec.limits.memory else "",
            f"{spec.limits.cpu:g} cores" if spec.limits.cpu else "",
            format_duration(spec.limits.runtime) if spec.limits.runtime else "",
        ]
        pruned = ", pruned runs only" if spec.prune == "required" else ""
        click.echo(f"label {name}: {spec.grants}{pruned}; limits: {', '.join(filter(None, limits)) or 'none'}")
    if dask := described.engine.dask:
        click.echo(f"engine: Dask, {dask.cluster or dask.address}")
    if beam := described.engine.beam:
        click.echo(f"engine: Beam, {beam.runner}")
    for name, target in described.targets.items():
        click.echo(f"target {name}: {target.url}")


@command.command("new")
@click.argument("bakery")
@click.option("--operator", "operators", multiple=True, required=True, help="A GitHub user; may be repeated.")
@click.option("--target", required=True, help="The URL below which datasets are written, such as s3://bucket.")
@click.option("--description", default="", help="Who runs it, where. [default: to be filled in]")
@click.option("--type", "kind", default="process", show_default=True, help="The Prefect worker's type.")
@bakeries_option
def new(
    bakery: str,
    operators: tuple[str, ...],
    target: str,
    description: str,
    kind: str,
    bakeries_folder: Path | None,
) -> None:
    """Describe a new bakery: its folder, bakery.yaml and CODEOWNERS.

    BAKERY is its id, such as `ldeo.aws.us-west-2`. Where GitHub answers, the operators' numeric ids are written down
    too, so that nobody takes over a name that was given up.
    """
    bakeries = read_bakeries(bakeries_folder)
    grants.refuse_id(bakery, bakeries)
    folder = bakeries.folder / bakery
    if folder.exists():
        raise Refused(TAKEN.at(Place(str(folder)), f"there is a bakery `{bakery}`", "edit its bakery.yaml"))
    quoted = json.dumps
    listed = [_operator(login) for login in operators]
    words = description or f"{bakery}: who runs it, where, and who pays"
    folder.mkdir()
    path = folder / "bakery.yaml"
    path.write_text(
        _NEW.format(
            id=bakery,
            description=quoted(words, ensure_ascii=False),
            operators="\n".join(f"  - {item}" for item in listed),
            pool=bakery.replace(".", "-"),
            type=quoted(kind),
            target=quoted(target),
        ),
        encoding="utf-8",
    )
    try:
        bakeries.read(bakery)
    except Refused:
        path.unlink()
        folder.rmdir()
        raise
    codeowners.write(bakeries)
    click.echo(f"{path}: edit its limits, then open a pull request")
    click.echo(f"    and serve it: feedstock bakery serve {bakery}")


def _operator(login: str) -> str:
    known = None
    try:
        with github.GitHub.from_environment(os.environ, patience=5) as client:
            known = client.user(login)
    except Refused as refused:
        click.echo(text(refused.findings[0]), err=True)
        click.echo(f"    {login} is written down without a numeric id", err=True)
    return f"{{github: {login}, id: {known['id']}}}" if known else f"{{github: {login}}}"


@command.command("check")
@click.argument("bakery", required=False)
@click.option("--fix", is_flag=True, help="Write CODEOWNERS as the bakeries say.")
@bakeries_option
def check(bakery: str | None, fix: bool, bakeries_folder: Path | None) -> int:
    """Check bakeries and their grants, all or one.

    Exit status: 0 if there is nothing to refuse, 1 otherwise.
    """
    bakeries = read_bakeries(bakeries_folder)
    if bakery is not None:
        bakeries.read(bakery)
    if fix and codeowners.write(bakeries):
        click.echo(f"wrote {codeowners.file(bakeries)}", err=True)
    found = [*grants.check(bakeries, bakery), *([] if bakery else codeowners.check(bakeries))]
    for finding in found:
        click.echo(text(finding))
    checked = [bakery] if bakery else bakeries.ids()
    count = sum(len(bakeries.grants(name)) for name in checked)
    click.echo(f"bakeries: {len(checked)}, grants: {count}, findings: {len(found)}", err=True)
    return EXIT_REFUSED if any(finding.severity is Severity.ERROR for finding in found) else 0


@command.command("serve")
@click.argument("bakery")
@click.option("--label", "labels", multiple=True, help="A label to listen to; may be repeated. [default: all of them]")
@bakeries_option
def serve(bakery: str, labels: tuple[str, ...], bakeries_folder: Path | None) -> None:
    """Run a worker for a bakery.

    Makes the bakery's work pool and queues where they are missing, and the automations that end lost runs and tell
    GitHub of ended ones; then listens to exactly these labels. GitHub is told with the token in
    FEEDSTOCK_DISPATCH_TOKEN, which Prefect keeps in a secret block; the worker does not see it.
    """
    file = read_bakeries(bakeries_folder).read(bakery)
    chosen = _chosen(file, labels)
    if importlib.util.find_spec("prefect") is None:
        fix = "install it: `pip install 'feedstock-forge[flows]'`"
        raise Refused(NO_PREFECT.at(None, "Prefect is not installed here", fix))
    pool = file.bakery.work_pool
    with Prefect.from_environment(os.environ, say=lambda line: click.echo(line, err=True)) as client:
        client.create_work_pool(pool.name, pool.type, file.bakery.description)
        for label in chosen:
            client.create_work_queue(pool.name, label)
        _automate(client, read_bakeries(bakeries_folder), file)
    click.echo(f"serving {bakery}: pool {pool.name}, labels {', '.join(chosen)}; Ctrl-C stops", err=True)
    arguments = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool.name, "--type", pool.type]
    for label in chosen:
        arguments += ["--work-queue", label]
    sys.stderr.flush()
    environment = {name: value for name, value in os.environ.items() if name != DISPATCH_TOKEN}
    environment.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(automations.HEARTBEAT))
    os.execve(arguments[0], arguments, environment)  # noqa: S606 - the worker takes over this process, its signals included


def _automate(client: Prefect, bakeries: Bakeries, file: BakeryFile) -> None:
    """Install the bakery's automations. A worker without them is worth more than none: what fails is said."""
    try:
        automations.end_lost_runs(client, file.id)
        if token := os.environ.get(DISPATCH_TOKEN):
            automations.keep_token(client, token)
        api = os.environ.get("GITHUB_API_URL") or github.API
        known = {
            repository_id: (name, automations.tell_github(client, name, repository_id, api))
            for repository_id, name in sorted(_feedstocks(client, bakeries, file).items())
        }
    except Refused as refused:
        click.echo(text(refused.findings[0]), err=True)
        click.echo("    serving without: how runs end reaches GitHub with the scheduled reconcile", err=True)
        return
    told = [name for name, done in known.values() if done]
    if token or told:
        click.echo(f"GitHub is told when runs end, for {len(told)} feedstocks and each that registers", err=True)
    else:
        click.echo(f"{DISPATCH_TOKEN} is not set: how runs end reaches GitHub with the scheduled reconcile", err=True)


def _feedstocks(client: Prefect, bakeries: Bakeries, file: BakeryFile) -> dict[int, str]:
    """The feedstocks of a bakery by GitHub's id: those that it has granted something, and those that are registered."""
    found: dict[int, str] = {}
    for path in bakeries.grants(file.id):
        try:
            grant = bakeries.read_grant(path).grant
        except Refused:
            continue  # `feedstock bakery check` says what is wrong with it
        found[grant.repository_id] = grant.repository
    for row in client.deployments_of_pool(file.bakery.work_pool.name):
        tags = dict(tag.split(":", 1) for tag in row["tags"] if ":" in tag)
        name = (row.get("parameters") or {}).get("repository")
        if tags.get("repository", "").isdigit() and name:
            found[int(tags["repository"])] = str(name)
    return found


def _chosen(file: BakeryFile, labels: tuple[str, ...]) -> list[str]:
    for label in labels:
        if label not in file.bakery.labels:
            raise Refused(unknown_label(file, label, file.document.place(("labels",))))
    return list(dict.fromkeys(labels)) or list(file.bakery.labels)
