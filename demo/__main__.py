"""`make demo`: runs the story in a folder of its own, and leaves either the result behind or nothing."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from pathlib import Path

OUTPUT = Path(__file__).parents[1] / "demo-output"
MARK = ".feedstock-forge-demo"


def main() -> int:
    """Run the demonstration; whatever goes wrong leaves no process and no folder behind."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the Prefect server and the worker up")
    keep = parser.parse_args().keep
    # Said outright, since a shell that starts this in the background has Ctrl-C ignored.
    for wish in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wish, signal.default_int_handler)
    if OUTPUT.exists() and not (OUTPUT / MARK).exists():
        print(f"{OUTPUT} is in the way and was not made by the demonstration: move it", file=sys.stderr)
        return 1
    finished = False
    try:
        shutil.rmtree(OUTPUT, ignore_errors=True)
        OUTPUT.mkdir()
        (OUTPUT / MARK).touch()
        # Only now: xarray and matplotlib take seconds to import, in which people press Ctrl-C too.
        from demo.story import Demo

        Demo(OUTPUT, keep).run()
        finished = True
    except KeyboardInterrupt:
        print("\nstopped by you; nothing is left behind", file=sys.stderr)
        return 130
    except RuntimeError as error:
        print(f"\nTHE DEMONSTRATION FAILED: {error}", file=sys.stderr)
        return 1
    finally:
        # A second Ctrl-C must not interrupt the tidying up of the first.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not finished:
            shutil.rmtree(OUTPUT, ignore_errors=True)
        elif not keep:
            shutil.rmtree(OUTPUT / "prefect", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
