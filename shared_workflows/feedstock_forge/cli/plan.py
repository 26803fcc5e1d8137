"""`feedstock plan`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .. import plan, trigger
from ..meta import Event
from .options import event_options, folder_option, read_trigger


@click.command("plan")
@folder_option
@event_options
@click.option(
    "--as", "supposed", type=click.Choice(["merge", "release"]),
    help="Preview: plan as if this checkout were merged or released.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("plan.json"), show_default=True,
    help="Where to write the plan.",
)  # fmt: skip
def command(folder: Path, event_name: str | None, event: Path | None, supposed: Event | None, output: Path) -> None:
    """Turn an event into plan.json: what would be registered.

    Imports the feedstock's recipes, so it refuses to run beside a secret of Prefect's. In GitHub Actions the event is
    the job's own; elsewhere name it:

        feedstock plan --event-name release --event release.json
    """
    plan.refuse_secrets(os.environ)
    if supposed and event_name:
        raise click.UsageError("--as and --event-name exclude each other")
    if not output.parent.is_dir():  # told before the recipes are imported, which can take long
        raise click.BadParameter(f"there is no folder {output.parent}", param_hint="--output")
    found = trigger.suppose(supposed, folder, os.environ) if supposed else read_trigger(event_name, event, folder)
    if isinstance(found, trigger.Nothing):
        plan.write(found, output)
        click.echo(f"nothing to register: {found.because}")
        return
    made = plan.make(found, folder)
    plan.write(made, output)
    labels = ", ".join(f"{wish.bakery}.{wish.label}" for wish in made.bakeries if found.event in wish.on)
    count = len(made.recipes)
    click.echo(
        f"{output}: {made.feedstock} {made.version[:12]}, {count} recipe{'s' if count > 1 else ''}, {made.mode}; "
        + (f"asks for {labels}" if labels else f"meta.yaml asks for no label on {found.event}")
    )
