"""One picture of the demonstration's dataset: a map of a day, and the mean over the ocean in time."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt

from demo import provider


def draw(dataset: str, path: Path) -> Path:
    """Draw a map of the first day and the mean over the ocean in time into a PNG; returns its path."""
    opened = provider.open_dataset(dataset)
    variable = opened["sst"]
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 7.5), height_ratios=[2.2, 1], layout="constrained")
    variable.isel(time=0).plot(ax=above, cmap="RdYlBu_r", robust=True, center=False)
    above.set_facecolor("0.85")
    above.set_xlabel("")
    variable.mean([name for name in variable.dims if name != "time"], keep_attrs=True).plot(ax=below)
    below.set_title("mean over the ocean")
    below.set_xlabel("")
    below.grid(alpha=0.3)
    figure.suptitle(opened.attrs["title"])
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
