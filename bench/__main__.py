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

import bench
from bench import Figure, Series

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PAGE = HERE.parent / "docs" / "performance.md"
PLOT = PAGE.with_suffix(".svg")
VERSIONS = ("prefect", "pydantic", "click", "pyyaml", "copier", "xarray", "zarr", "icechunk", "dask", "distributed")


def main() -> None:
    """Run the named benchmarks; the results of the others stay as they were."""
    known = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(known)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="a rehearsal on little work; its results are only printed")
    chosen = parser.parse_args()
    names, bench.quick = chosen.names or known, chosen.quick
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            found: list[Figure | Series] = importlib.import_module(f"bench.{name}").run()
        except KeyboardInterrupt:
            print(f"stopped in {name}; what was measured before it is kept", file=sys.stderr)
            sys.exit(130)
        results[name] = {
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": _machine(),
            "versions": _versions(),
            "figures": [asdict(item) | {"reached": item.reached} for item in found if isinstance(item, Figure)],
            "series": [asdict(item) | {"exponent": item.exponent} for item in found if isinstance(item, Series)],
        }
        if chosen.quick:
            print(_page({name: results[name]}))
            continue
        _write(RESULTS, json.dumps(results, indent=2, ensure_ascii=False, sort_keys=True) + "\n")
        _plot(results)
        _write(PAGE, _page(results))
    if not chosen.quick:
        print(PAGE.read_text(encoding="utf-8"))


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _plot(results: dict[str, Any]) -> None:
    """Draw every series, seconds over work, on logarithmic axes; one panel a benchmark."""
    shown = {name: result["series"] for name, result in sorted(results.items()) if result.get("series")}
    if not shown:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    # The same drawing has the same bytes, or every run would change the file.
    mpl.rcParams.update({"svg.hashsalt": "feedstock-forge", "font.size": 9})
    from matplotlib import pyplot, ticker

    figure, panels = pyplot.subplots(1, len(shown), figsize=(5 * len(shown), 4.2), squeeze=False, layout="constrained")
    for panel, (name, series) in zip(panels[0], shown.items(), strict=True):
        for each in series:
            panel.loglog(each["sizes"], each["seconds"], "o-", label=f"{each['name']} ({each['exponent']:.2f})")
        panel.set(title=name, xlabel=series[0]["work"], ylabel="seconds")
        sizes = sorted({size for each in series for size in each["sizes"]})
        panel.set_xticks(sizes, [f"{size:,g}" for size in sizes])
        panel.xaxis.set_minor_locator(ticker.NullLocator())  # which would write between the sizes, and over them
        panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:,g}")
        panel.yaxis.set_minor_formatter(ticker.NullFormatter())
        panel.legend(fontsize=7)
        panel.grid(visible=True, which="major", alpha=0.3)
    partial = PLOT.with_name(f".{PLOT.name}.partial")
    figure.savefig(partial, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    partial.replace(PLOT)


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
        "with it in the same run: seconds differ from machine to machine, ratios much less. An exponent of 1 says that",
        "twice the work takes twice the time.",
    ]
    if any(result.get("series") for result in results.values()):
        lines += ["", "![Seconds over the amount of work, on logarithmic axes](performance.svg)"]
    for name, result in sorted(results.items()):
        machine, versions = result["machine"], result["versions"]
        lines += ["", f"## {name}", "", "| figure | value | goal | peer | from |", "| --- | --- | --- | --- | --- |"]
        for figure in result["figures"]:
            mark = "" if figure["reached"] else " (missed)"
            value = f"{figure['value']:.3g} {figure['unit']}"
            lines.append(
                f"| {figure['name']} | {value}{mark} | {figure['goal']} | {figure['peer']} | {figure['detail']} |"
            )
        if series := result.get("series"):
            lines += ["", "| as work grows | sizes | seconds | exponent |", "| --- | --- | --- | --- |"]
        for each in series or []:
            sizes = ", ".join(f"{size:g}" for size in each["sizes"])
            seconds = ", ".join(f"{second:.3g}" for second in each["seconds"])
            lines.append(f"| {each['name']} | {sizes} {each['work']} | {seconds} | {each['exponent']:.2f} |")
        lines += [
            "",
            f"{result['measured'][:10]}, {machine['cores']} cores of {machine['processor']}, {machine['memory']}, "
            + ", ".join(f"{package} {version}" for package, version in sorted(versions.items()))
            + ".",
        ]
    return "\n".join(lines) + "\n"


main()
