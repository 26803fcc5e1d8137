"""`feedstock`, and `python -m feedstock_forge`: the command line, started and ended without detours."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from types import ModuleType
from typing import Any, NoReturn

QUICK = ("lint", "new", "plan", "register")
"""Commands that people or jobs wait for, and that leave nothing to tidy up."""


class _Metadata(ModuleType):
    """Stands for `importlib.metadata`, which it imports when something of it is used.

    Pydantic imports it for its look for plugins, which nobody asks for where they are off: that is a tenth of what a
    command costs.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # by which the import system tells packages from modules
            raise AttributeError(name)
        if name == "entry_points":
            return lambda **selected: self._real().entry_points(**selected)
        return getattr(self._real(), name)

    def _real(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)


def program() -> NoReturn:
    """Run the command line, and start and end quickly where a command leaves nothing to tidy up.

    Looking for garbage among imports, and for plugins of Pydantic's among everything that is installed, and taking the
    interpreter apart at the end are a fifth of what such a command would cost, and the system takes its memory back
    anyway. Other commands end in the ordinary way, with their threads and exit handlers.
    """
    gc.disable()
    # Where a stream was closed by whoever started this, the next file that is opened would stand in its place.
    for stream, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - open until the end
    from .cli import main

    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in QUICK:
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
        sys.modules["importlib.metadata"] = importlib.metadata = _Metadata("importlib.metadata")
        # httpx has a command line of its own and imports it, with Rich, wherever that can be: half of what httpx costs.
        sys.modules["httpx._main"] = None  # type: ignore[assignment] # which is how an import is told to fail
        gc.set_threshold(50_000, 20, 20)
    if name != "new":  # which goes on with the imports of Copier, and makes one small folder
        gc.enable()
    try:
        main()
    except SystemExit as stop:
        if name not in QUICK:
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stop.code if isinstance(stop.code, int) else 1)


if __name__ == "__main__":
    program()
