"""`feedstock`, and `python -m feedstock_forge`: the command line, started and ended without detours."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn


def program() -> NoReturn:
    """Run the command line, and end quickly where a command leaves nothing to tidy up.

    `feedstock lint` is met in editors and before every commit, and `feedstock new` is waited for. Looking for garbage
    among imports and taking the interpreter apart at the end are a fifth of what they would cost, and the system takes
    their memory back anyway. Other commands end in the ordinary way, with their threads and exit handlers.
    """
    gc.disable()
    from .cli import main

    if sys.argv[1:2] == ["lint"]:
        # Pydantic looks through everything that is installed for plugins, before it checks the first file.
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
        gc.set_threshold(50_000, 20, 20)
    if sys.argv[1:2] != ["new"]:  # which goes on with the imports of Copier, and makes one small folder
        gc.enable()
    try:
        main()
    except SystemExit as stop:
        if sys.argv[1:2] not in (["lint"], ["new"]):
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stop.code if isinstance(stop.code, int) else 1)


if __name__ == "__main__":
    program()
