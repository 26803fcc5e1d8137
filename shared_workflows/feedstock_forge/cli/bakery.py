"""`feedstock bakery`."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import click

from ..bakery import BakeryFile, unknown_label
from ..findings import Refused, rule
from ..prefect import Prefect
from ..quantities import format_duration, format_memory
from .options import bakeries_option, read_bakeries

NO_PREFECT = rule("flows-extra-missing", "A worker is Prefect's own program.")


@click.group("bakery")
def command() -> None:
    """Show bakeries and serve one."""


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
    for name, target in described.targets.items():
        click.echo(f"target {name}: {target.url}")


@command.command("serve")
@click.argument("bakery")
@click.option("--label", "labels", multiple=True, help="A label to listen to; may be repeated. [default: all of them]")
@bakeries_option
def serve(bakery: str, labels: tuple[str, ...], bakeries_folder: Path | None) -> None:
    """Run a worker for a bakery.

    Makes the bakery's work pool and queues where they are missing, then listens to exactly these labels.
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
    click.echo(f"serving {bakery}: pool {pool.name}, labels {', '.join(chosen)}; Ctrl-C stops", err=True)
    arguments = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool.name, "--type", pool.type]
    for label in chosen:
        arguments += ["--work-queue", label]
    sys.stderr.flush()
    os.execv(arguments[0], arguments)  # noqa: S606 - the worker takes over this process, its signals included


def _chosen(file: BakeryFile, labels: tuple[str, ...]) -> list[str]:
    for label in labels:
        if label not in file.bakery.labels:
            raise Refused(unknown_label(file, label, file.document.place(("labels",))))
    return list(dict.fromkeys(labels)) or list(file.bakery.labels)
