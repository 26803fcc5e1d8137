"""Pipelines of pangeo-forge-recipes as recipes, in the environment that a bakery makes for them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from feedstock_forge import environments, recipe_process
from feedstock_forge.bake import Provenance
from feedstock_forge.findings import Refused
from support.feedstocks import META

# Building the environment takes a minute where nothing is cached, and each process imports Beam.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
RECIPE = """
from pathlib import Path

import apache_beam as beam
from pangeo_forge_recipes.patterns import ConcatDim, FilePattern, MergeDim
from pangeo_forge_recipes.transforms import OpenURLWithFSSpec, OpenWithXarray, StoreToZarr

HERE = Path(__file__).parent / "inputs"
pattern = FilePattern(
    lambda time, variable: f"{HERE}/{variable}-{time}.nc",
    ConcatDim("time", keys=[1, 2, 3]),
    MergeDim("variable", keys=["sst", "ice"]),
)
create = beam.Create(pattern.items())
read = "Read" >> OpenURLWithFSSpec() | OpenWithXarray(file_type=pattern.file_type)
store = StoreToZarr(store_name="any.zarr", combine_dims=pattern.combine_dim_keys)

ocean = create | read | "Write" >> store
recipes = {"ocean": ocean, "again": ocean}
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feedstock of two recipes in a dict, with two variables in files of their own, two days a file."""
    folder = tmp_path_factory.mktemp("server") / "ocean-feedstock"
    inputs = folder / "feedstock/inputs"
    inputs.mkdir(parents=True)
    recipes = '{dict_object: "recipe:recipes", store: zarr}'
    (folder / "feedstock/meta.yaml").write_text(META.format(id="ocean", recipes=recipes), encoding="utf-8")
    (folder / "feedstock/recipe.py").write_text(RECIPE, encoding="utf-8")
    shutil.copy(ROOT / "templates/beam/requirements.txt", folder / "feedstock")
    for month in (1, 2, 3):
        for offset, name in enumerate(("sst", "ice")):
            time = pd.date_range(f"2020-{month:02}-01", periods=2)
            values = np.array([[10.0 * month + offset], [10.0 * month + offset + 0.5]])
            ds = xr.Dataset({name: (("time", "x"), values)}, coords={"time": time})
            ds.to_netcdf(inputs / f"{name}-{month}.nc", engine="h5netcdf")
    return folder


@pytest.fixture(scope="module")
def python(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(environments.FOLDER_VARIABLE, str(tmp_path_factory.mktemp("environments")))
        return environments.python_for(checkout, print)


Run = Callable[..., list[str]]


@pytest.fixture
def run(checkout: Path, python: Path) -> Run:
    """Run the recipe as a worker does; returns the lines of its log."""

    def call(target: Path | str, *, folder: Path = checkout, mode: str = "complete", prune: bool = False) -> list[str]:
        said: list[str] = []
        origin = Provenance("ocean", "ocean", "forge/ocean-feedstock", "c0ffee", "v1.0.0", mode)
        job = recipe_process.Job(str(folder), "ocean", str(target), mode, prune, origin)  # type: ignore[arg-type]
        recipe_process.run(python, job, said.append)
        return said

    return call


def values(target: Path) -> dict[str, list[float]]:
    with xr.open_zarr(target, chunks=None) as found:  # type: ignore[arg-type]
        return {str(name): found[name].values.ravel().tolist() for name in found.data_vars}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_writes_where_it_is_told_and_says_where_the_dataset_comes_from(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "out/ocean.zarr"
    run(target, prune=True)
    assert values(target) == {"sst": [10, 10.5, 20, 20.5], "ice": [11, 11.5, 21, 21.5]}, "both variables of two months"
    run(target)
    assert values(target)["sst"] == [10, 10.5, 20, 20.5, 30, 30.5]
    made = json.loads((target / ".zattrs").read_text(encoding="utf-8"))
    assert made["feedstock_provenance"]["commit"] == "c0ffee"
    assert (target / ".zmetadata").exists()
    assert [path.name for path in target.parent.iterdir()] == ["ocean.zarr"]


def test_a_run_that_changes_nothing_or_fails_leaves_the_dataset_as_it_was(
    run: Run, checkout: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out/ocean.zarr"
    run(target)
    before = tree(tmp_path / "out")
    assert any("nothing new" in line for line in run(target, mode="update"))
    with pytest.raises(Refused, match="prune-would-shrink"):
        run(target, prune=True)
    broken = tmp_path / "ocean-feedstock"
    shutil.copytree(checkout, broken)
    (broken / "feedstock/inputs/ice-2.nc").unlink()
    with pytest.raises(Refused, match=r"beam-input-unreadable.*ice-2\.nc.*No such file"):
        run(target, folder=broken)
    recipe = broken / "feedstock/recipe.py"
    recipe.write_text(RECIPE.replace("keys=[1, 2, 3]", "keys=[1, 3]"), encoding="utf-8")
    for name in ("sst", "ice"):
        shutil.copy(broken / f"feedstock/inputs/{name}-1.nc", broken / f"feedstock/inputs/{name}-3.nc")
    with pytest.raises(Refused, match="beam-time-unsorted"):
        run(target, folder=broken)
    (broken / "feedstock/inputs/ice-1.nc").write_text("<html>log in</html>")
    with pytest.raises(Refused, match=r"beam-input-unreadable.*ice-1\.nc.*<html>lo"):
        run(target, folder=broken)
    time = pd.date_range("2020-01-01", periods=2)
    wide = xr.Dataset({"ice": (("time", "x"), np.ones((2, 3)))}, coords={"time": time})
    wide.to_netcdf(broken / "feedstock/inputs/ice-1.nc", engine="h5netcdf")
    with pytest.raises(Refused, match=r"beam-inputs-differ.*ice-1\.nc has 3 along `x`.*sst-1\.nc has 1"):
        run(target, folder=broken)
    assert tree(tmp_path / "out") == before


PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
import apache_beam as beam
import recipe
from feedstock_forge.beam import is_pipeline, run
from feedstock_forge.findings import Refused

assert is_pipeline(recipe.ocean) and not is_pipeline(recipe.pattern)
found = {}

def refused(name, pipeline, target, **choices):
    try:
        run(pipeline, target, **choices)
    except Refused as error:
        found[name] = [finding.id for finding in error.findings]

out = sys.argv[2]
refused("icechunk", recipe.ocean, f"{out}/a.icechunk")
refused("no store", recipe.create | recipe.read, f"{out}/b.zarr")
refused("two stores", recipe.create | recipe.read | recipe.store | recipe.store, f"{out}/c.zarr")
refused("no inputs", recipe.read | recipe.store, f"{out}/d.zarr", prune=True)
refused("foreign", recipe.ocean, f"{out}/thesis.zarr")
run(recipe.ocean, "memory://bucket/ocean.zarr", prune=True)
refused("published", recipe.ocean, "memory://bucket/ocean.zarr")
import os
os.environ["FEEDSTOCK_BEAM"] = json.dumps({"runner": "NoSuchRunner", "options": {}})
refused("runner", recipe.ocean, f"{out}/e.zarr")
print(json.dumps(found))
"""


def test_what_cannot_be_run_is_refused_before_anything_is_written(checkout: Path, python: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.zarr").mkdir()
    (tmp_path / "thesis.zarr/text").write_text("years of work")
    done = subprocess.run(
        [python, "-W", "ignore", "-c", textwrap.dedent(PROGRAM), str(checkout / "feedstock"), str(tmp_path)],
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "icechunk": ["beam-no-store"],
        "no store": ["beam-no-store"],
        "two stores": ["beam-no-store"],
        "no inputs": ["beam-no-inputs"],
        "foreign": ["target-not-a-dataset"],
        "published": ["beam-target-published"],
        "runner": ["beam-runner"],
    }
    assert list(tree(tmp_path)) == ["thesis.zarr/text"]
