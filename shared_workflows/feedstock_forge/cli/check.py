"""`feedstock check`: what a pull request is checked for, before it is opened."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click

from .options import folder_option

STEPS = {
    "Lint": ("lint",),
    "Plan, as if this were merged": ("plan", "--as", "merge"),
    "Run each recipe on its first few inputs": ("run", "--all", "--at-most", "5", "--prune"),
}
"""The steps of the action `check` by their names there, and the commands that they run."""

_WRITES = {"plan": "--output", "run": "--target"}


@click.command("check")
@folder_option
@click.option("--without-run", is_flag=True, help="Leave the recipes' own run out.")
def command(folder: Path, without_run: bool) -> int:
    """Check a feedstock as its pull requests are checked: lint, plan, and each recipe on its first few inputs.

    Stops at the first of them that fails. Nothing is written to the feedstock.

    Ends with 0 if a pull request would pass, and with 1 if it would not.
    """
    with tempfile.TemporaryDirectory(prefix="feedstock-check-") as scratch:
        for name, words in STEPS.items():
            if without_run and words[0] == "run":
                continue
            click.echo(f"== {name}", err=True)
            option = _WRITES.get(words[0])
            writes = (option, str(Path(scratch, words[0]))) if option else ()
            # A process for each, as in the action: what one recipe imports is not there for the next step.
            done = subprocess.run([sys.executable, "-m", "feedstock_forge", *words, *writes], cwd=folder, check=False)
            if done.returncode:
                click.echo(f"the check of a pull request would stop here, at: {name}", err=True)
                return done.returncode
    click.echo("a pull request would pass its check" + (" up to the run" if without_run else ""), err=True)
    return 0
