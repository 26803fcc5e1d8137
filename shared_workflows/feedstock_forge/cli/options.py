"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import TypeAdapter, ValidationError

from .. import bakery, trigger
from ..meta import Resources

F = TypeVar("F", bound=Callable[..., Any])

folder_option = click.option(
    "-C", "--feedstock", "folder", type=click.Path(path_type=Path, file_okay=False, exists=True), default=Path(),
    help="The feedstock's folder. [default: this one]",
)  # fmt: skip

bakeries_option = click.option(
    "--bakeries", "bakeries_folder", type=click.Path(path_type=Path, file_okay=False),
    help="The bakery database. [default: $FEEDSTOCK_BAKERIES, else the one that came with the forge]",
)  # fmt: skip

report_option = click.option(
    "--report", "reporting", is_flag=True,
    help="Show it on GitHub too: a deployment a label, and a text in the release or the pull request.",
)  # fmt: skip


def event_options(function: F) -> F:
    """``--event-name`` and ``--event``: which event to act on, outside GitHub Actions."""
    function = click.option(
        "--event", type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="The event's JSON payload. [default: $GITHUB_EVENT_PATH]",
    )(function)  # fmt: skip
    return click.option("--event-name", help="The event's name, such as `release`. [default: $GITHUB_EVENT_NAME]")(
        function
    )


def read_trigger(name: str | None, event: Path | None, folder: Path | None) -> trigger.Trigger | trigger.Nothing:
    """The trigger that the options and GitHub's environment describe. Raises ``UsageError`` for half of a pair."""
    if bool(name) != bool(event):
        raise click.UsageError("--event-name and --event belong together")
    if name and event:
        return trigger.read(name, event, os.environ, folder)
    return trigger.from_environment(os.environ, folder)


def read_bakeries(folder: Path | None) -> bakery.Bakeries:
    """The bakery database that the option, the environment or the forge itself names."""
    return bakery.Bakeries.at(folder or bakery.default_folder())


class Amount(click.ParamType[int]):
    """A number with its unit, such as ``6 GiB`` or ``10 min``, by one of the types of :mod:`..quantities`."""

    name = "amount"

    def __init__(self, kind: Any) -> None:
        self._adapter: TypeAdapter[int] = TypeAdapter(kind)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes or seconds. Fails as click does for what is no amount."""
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            self.fail(wrong(error), param, ctx)


class Needs(click.ParamType[Resources]):
    """What one run needs, as memory and cores: ``8 GiB,2``."""

    name = "resources"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Resources:
        """What a request says. Fails as click does for what is no amount."""
        memory, _, cpu = value.partition(",")
        try:
            cores = float(cpu) if cpu.strip() else None
        except ValueError:
            self.fail(f"`{cpu}` is no number of cores", param, ctx)
        try:
            return Resources.model_validate({"memory": memory.strip() or None, "cpu": cores})
        except ValidationError as error:
            self.fail(wrong(error), param, ctx)


def wrong(error: ValidationError) -> str:
    """The first thing that is wrong with what a person typed, and what to write instead where the rule says so."""
    said = error.errors(include_url=False)[0]
    parts = (*map(str, said["loc"]), said["msg"])
    fix = said.get("ctx", {}).get("fix")
    return ": ".join(parts) + (f"; {fix}" if fix else "")
