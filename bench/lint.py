"""``feedstock lint``: how soon it answers, and how much it looks at in a second."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import bench
from bench import Figure, Series, alternate, say, scaled

FORGE = Path(__file__).parents[1] / "tests" / "data" / "forge"
FEEDSTOCK = Path(sys.executable).with_name("feedstock")
SIZES = [1, 10, 100, 1000]
TIMES = 15


def run() -> list[Figure | Series]:
    """A feedstock, whole process, held against importing Prefect; and a thousand feedstocks in one call."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copytree(FORGE, folder / "forge")
        lint = [FEEDSTOCK, "lint", "--bakeries", folder / "forge" / "bakeries"]

        def program(*command: object) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [str(word) for word in command],
                env=bench.environment(),
                capture_output=True,
                text=True,
                check=True,
                cwd=folder,
            )

        one = folder / "forge" / "noaa-oisst-feedstock"
        many = folder / "many"
        sizes = scaled(SIZES, SIZES[:2])
        for number in range(sizes[-1]):
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
        some = sorted(many.iterdir())
        seconds = []
        for size in sizes:
            seconds += alternate(3, partial(program, *lint, *some[:size]))
            say(f"{size} feedstocks: {seconds[-1]:.2f} s")
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
            f"feedstocks a second, {sizes[-1]:,} in one call",
            sizes[-1] / seconds[-1],
            "/s",
            "≥ 300",
            detail=f"{files:,} files, {files / seconds[-1]:,.0f} a second, whole process",
        ),
        Series("`feedstock lint`", "feedstocks", [float(size) for size in sizes], seconds),
    ]
