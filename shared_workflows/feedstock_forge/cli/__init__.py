"""The `feedstock` command: it parses arguments, calls the module of the same name and prints what comes back.

Each command lives in a module of its own here and is imported only when it is used, so `feedstock lint` never pays
for what `feedstock run` needs.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, NoReturn

import click

from .. import __version__
from ..findings import Place, Refused, did_you_mean, rule, text

INTERNAL = rule("internal-error", "This is a fault of Feedstock Forge, not of your files.")
SYSTEM = rule("system-refused", "Room, leave and programs are the machine's to give, not the forge's.")

COMMANDS = {
    "lint": "Check feedstocks, staged recipes, bakeries and grants.",
    "check": "Check a feedstock as its pull requests are checked.",
    "run": "Run a recipe here, with no server at hand.",
    "plan": "Turn an event into plan.json: what would be registered.",
    "register": "Register a plan's recipes in Prefect and start their runs.",
    "watch": "Follow flow runs until they end.",
    "new": "Make a feedstock from the template.",
    "create": "Make feedstocks of staged recipes that were merged.",
    "status": "Show on GitHub how runs went.",
    "update": "Put a newer version of the template into feedstocks.",
    "catalog": "Describe datasets as STAC, and make a website of them.",
    "bakery": "Describe bakeries, check them and serve one.",
    "staged": "Look after pull requests that propose recipes.",
    "label": "Ask for a bakery's label, grant it, explain and audit.",
}

EXIT_REFUSED = 1
EXIT_PARTLY = 3
EXIT_INTERRUPTED = 130


class _Lazy(click.Group):
    """A group that knows its commands by name and one line, and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command `{args[0]}`; {did_you_mean(args[0], list(COMMANDS))}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="feedstock")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def feedstock(context: click.Context, debug: bool) -> None:
    """Make datasets from recipes: check a feedstock, run it here, register it at a bakery."""
    if os.environ.get("GITHUB_ACTIONS") == "true" and context.invoked_subcommand not in ("lint", "check"):
        # What follows may quote recipes, logs and titles, and the runner obeys a line such as `::add-mask::…` whoever
        # wrote it. It obeys none until the step ends; `lint` alone annotates, and escapes what it quotes;
        # `check` says nothing but the names of its steps, each a command of its own.
        # https://docs.github.com/actions/reference/workflow-commands-for-github-actions#stopping-and-starting-workflow-commands
        import secrets  # it takes as long to import as all of this module, and only jobs need it

        click.echo(f"::stop-commands::{secrets.token_hex(16)}")
    if debug:
        os.environ["FEEDSTOCK_DEBUG"] = "1"


def main(
    arguments: list[str] | None = None, *, command: click.Command = feedstock, name: str = "feedstock"
) -> NoReturn:
    """Run a command line: every refusal is printed once, here, and a traceback only with ``--debug``."""
    try:
        status: Any = command.main(arguments, prog_name=name, standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped by you", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except Refused as refused:
        for finding in refused.findings:
            click.echo(text(finding), err=True)
        _debug()
        sys.exit(EXIT_REFUSED)
    except BrokenPipeError:
        # The reader left (`| head`): nothing is wrong, and there is nobody to tell.
        _leave_unsaid()
        sys.exit(0)
    except Exception as error:
        _debug()
        fix = "run it again as `feedstock --debug …` and open an issue with what it prints"
        finding = INTERNAL.at(None, f"{type(error).__name__}: {error}", fix)
        if isinstance(error, OSError) and error.strerror:
            place = None if error.filename is None else Place(str(error.filename))
            finding = SYSTEM.at(place, error.strerror, "see to what it says, then run it again")
            if place is None:  # it may have been the output, and would be once more at the end
                _leave_unsaid()
        click.echo(text(finding), err=True)
        sys.exit(EXIT_REFUSED)


def _leave_unsaid() -> None:
    """Drop what the output still holds, which nobody can take."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _debug() -> None:
    if os.environ.get("FEEDSTOCK_DEBUG"):
        raise
