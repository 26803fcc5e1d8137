"""A feedstock fresh from the template passes its own checks, whatever was answered."""

import re
import subprocess
import sys
from pathlib import Path

import copier
import icechunk
import pandas as pd
import pytest
import xarray as xr
import yaml

from feedstock_forge import lint
from feedstock_forge.bakery import Bakeries
from support import templates
from test_template_engines import MATRIX, QUESTIONS

ROOT = Path(__file__).parents[1]
TOOLS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def forge(tmp_path_factory):
    return templates.release(tmp_path_factory.mktemp("forge") / "forge")


@pytest.fixture(scope="module", params=MATRIX, ids=lambda answers: f"{answers['kind']}-{answers['store']}")
def feedstock(forge, request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated") / "noaa-oisst-feedstock"
    copier.run_copy(str(forge), folder, data=templates.ANSWERS | request.param, defaults=True, quiet=True)
    return templates.begin(folder)


def passes(*command, cwd):
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint_finds_nothing(feedstock):
    options = lint.Options(bakeries=Bakeries.at(ROOT / "bakeries"))
    assert [str(found) for found in lint.lint([feedstock], options).findings] == []


def test_ruff_finds_nothing(feedstock):
    passes(TOOLS / "ruff", "check", "--isolated", "--select", "E,F,I,B,UP,W", "--line-length", "120", cwd=feedstock)


def test_ruff_would_format_nothing(feedstock):
    passes(TOOLS / "ruff", "format", "--check", "--isolated", "--line-length", "120", cwd=feedstock)


def test_zizmor_finds_nothing_at_its_strictest(feedstock):
    passes(TOOLS / "zizmor", "--quiet", "--offline", "--persona", "auditor", ".", cwd=feedstock)


def test_actionlint_finds_nothing(feedstock):
    (actionlint,) = (ROOT / ".tools/bin").glob("actionlint-*")
    passes(actionlint, cwd=feedstock)


def test_its_own_test_passes(feedstock):
    passes(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=feedstock)


def written(dataset, store):
    source = str(dataset)
    if store == "icechunk":
        source = icechunk.Repository.open(icechunk.local_filesystem_storage(source)).readonly_session("main").store
    return xr.open_zarr(source, consolidated=False)["sst"].values.tolist()


@pytest.mark.parametrize("store", ["icechunk", "zarr"])
def test_its_recipe_runs_pruned_once_its_inputs_are_named(forge, tmp_path, store):
    folder = tmp_path / "noaa-oisst-feedstock"
    answers = templates.ANSWERS | {"kind": "xarray", "store": store}
    copier.run_copy(str(forge), folder, data=answers, defaults=True, quiet=True)
    inputs = [str(tmp_path / f"{month}.nc") for month in (1, 2, 3)]
    for month, path in enumerate(inputs, 1):
        time = pd.date_range(f"2020-{month:02}-01", periods=2)
        xr.Dataset({"sst": ("time", [month, month + 0.5])}, coords={"time": time}).to_netcdf(path)
    recipe = folder / "feedstock/recipe.py"
    text = recipe.read_text(encoding="utf-8")
    named, count = re.subn(r"(?s)INPUTS = \[.*?\n\]", lambda _: f"INPUTS = {inputs}", text)
    assert count == 1
    recipe.write_text(named, encoding="utf-8")
    passes(TOOLS / "feedstock", "run", "--prune", cwd=folder)
    (dataset,) = (folder / "datasets").rglob(f"*.{store}")
    assert written(dataset, store) == [1, 1.5, 2, 2.5]  # a pruned run takes two inputs


def test_what_comes_from_the_forge_is_pinned_to_the_templates_commit(forge, feedstock):
    commit = templates.git(forge, "rev-parse", "HEAD")
    pins = {}
    for name in (".github/workflows/check.yml", ".github/workflows/register.yml", ".pre-commit-config.yaml",
                 "feedstock/meta.yaml", "requirements-dev.txt"):  # fmt: skip
        pins[name] = set(re.findall(r"[0-9a-f]{40}", (feedstock / name).read_text(encoding="utf-8")))
    assert pins == {name: {commit} for name in pins}


def test_the_maintainers_own_the_code(forge, tmp_path):
    answers = templates.ANSWERS | {"maintainers": "Ada Lovelace @ada; Zoë O'Brien @zoe-1 0000-0002-1825-0097"}
    copier.run_copy(str(forge), tmp_path / "made", data=answers, defaults=True, quiet=True)
    assert "\n* @ada @zoe-1" in (tmp_path / "made/.github/CODEOWNERS").read_text(encoding="utf-8")
    meta = yaml.safe_load((tmp_path / "made/feedstock/meta.yaml").read_text(encoding="utf-8"))
    assert meta["maintainers"][1] == {"name": "Zoë O'Brien", "github": "zoe-1", "orcid": "0000-0002-1825-0097"}


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_has_help_and_what_is_typed_has_a_validator(name):
    question = QUESTIONS[name]
    assert question["help"].strip()
    assert "choices" in question or "validator" in question
    assert {"placeholder", "default"} & set(question)


def test_nothing_in_the_template_makes_copier_ask_for_trust():
    settings = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    assert not {"_tasks", "_migrations", "_jinja_extensions"} & set(settings)
