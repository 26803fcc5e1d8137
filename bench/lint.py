"""``feedstock lint``: how soon it answers, and how much it looks at in a second."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import Figure, alternate

FORGE = Path(__file__).parents[1] / "tests" / "data" / "forge"
FEEDSTOCK = Path(sys.executable).with_name("feedstock")
MANY = 1000
TIMES = 15


def run() -> list[Figure]:
    """A feedstock, whole process, held against importing Prefect; and a thousand feedstocks in one call."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # Both with their bytecode kept, as installed programs have it.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        shutil.copytree(FORGE, folder / "forge")
        lint = [FEEDSTOCK, "lint", "--bakeries", folder / "forge" / "bakeries"]

        def program(*command: object) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [str(word) for word in command], env=environment, capture_output=True, text=True, check=True, cwd=folder
            )

        one = folder / "forge" / "noaa-oisst-feedstock"
        many = folder / "many"
        for number in range(MANY):
            copy = many / f"noaa-oisst-{number}-feedstock"
            shutil.copytree(one, copy)
            meta = copy / "feedstock" / "meta.yaml"
            meta.write_text(meta.read_text().replace("id: noaa-oisst\n", f"id: noaa-oisst-{number}\n"))
        program(*lint, one)
        program(sys.executable, "-c", "import prefect")
        linting, importing = alternate(
            TIMES,
            lambda: program(*lint, one),
            lambda: program(sys.executable, "-c", "import prefect"),
        )
        files = json.loads(program(*lint, many, "--format", "json").stdout)["summary"]["files"]
        (thousand,) = alternate(3, lambda: program(*lint, many))
    return [
        Figure(
            "`feedstock lint` of a feedstock, whole process",
            linting / importing,
            "times",
            "≤ 0.15",
            '`python -c "import prefect"`',
            f"{linting * 1000:.0f} ms to {importing * 1000:.0f} ms, medians of {TIMES}",
        ),
        Figure(
            f"feedstocks a second, {MANY:,} in one call",
            MANY / thousand,
            "/s",
            "≥ 300",
            detail=f"{files:,} files, {files / thousand:,.0f} a second, whole process",
        ),
    ]
