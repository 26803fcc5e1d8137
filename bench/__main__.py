"""Run benchmarks and write what they found: ``bench/results.json`` for programs, ``docs/performance.md`` for people."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import Figure

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PAGE = HERE.parent / "docs" / "performance.md"
VERSIONS = ("prefect", "pydantic", "click", "pyyaml", "copier", "xarray", "zarr", "icechunk", "dask")


def main() -> None:
    """Run the named benchmarks; the results of the others stay as they were."""
    known = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(known)}; all if none is named")
    names = parser.parse_args().names or known
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        figures: list[Figure] = importlib.import_module(f"bench.{name}").run()
        results[name] = {
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": _machine(),
            "versions": _versions(),
            "figures": [asdict(figure) | {"reached": figure.reached} for figure in figures],
        }
    RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    page = _page(results)
    PAGE.write_text(page, encoding="utf-8")
    print(page)


def _machine() -> dict[str, object]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "memory": f"{memory / 2**30:.0f} GiB",
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in VERSIONS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _page(results: dict[str, Any]) -> str:
    lines = [
        "# Performance",
        "",
        "`make bench` measures and writes this page. What is given in times is a ratio to the peer, measured in turns",
        "with it in the same run: seconds differ from machine to machine, ratios much less.",
    ]
    for name, result in sorted(results.items()):
        machine, versions = result["machine"], result["versions"]
        lines += ["", f"## {name}", "", "| figure | value | goal | peer | from |", "| --- | --- | --- | --- | --- |"]
        for figure in result["figures"]:
            mark = "" if figure["reached"] else " (missed)"
            value = f"{figure['value']:.3g} {figure['unit']}"
            lines.append(
                f"| {figure['name']} | {value}{mark} | {figure['goal']} | {figure['peer']} | {figure['detail']} |"
            )
        lines += [
            "",
            f"{result['measured'][:10]}, {machine['cores']} cores of {machine['processor']}, {machine['memory']}, "
            + ", ".join(f"{package} {version}" for package, version in versions.items())
            + ".",
        ]
    return "\n".join(lines) + "\n"


main()
