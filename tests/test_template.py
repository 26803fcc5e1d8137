"""A feedstock fresh from the template passes its own checks, whatever was answered."""

import json
import re
import runpy
import subprocess
import symtable
import sys
from fnmatch import fnmatch
from pathlib import Path

import copier
import dask.array
import icechunk
import jsonschema
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from packaging.requirements import Requirement
from referencing import Registry, Resource

from feedstock_forge import lint
from feedstock_forge.bakery import Bakeries
from feedstock_forge.yaml_file import parse_yaml
from support import templates
from test_template_engines import MATRIX, QUESTIONS

ROOT = Path(__file__).parents[1]
TOOLS = Path(sys.executable).parent
WORKFLOWS = ".github/workflows/"


@pytest.fixture(scope="module")
def forge(tmp_path_factory):
    return templates.release(tmp_path_factory.mktemp("forge") / "forge")


# An empty flow waits for a server of its own, which makes it the slowest, and its stores differ by a word.
KINDS = [
    pytest.param(
        answers,
        id=f"{answers['kind']}-{answers['store']}",
        marks=[pytest.mark.slow] if (answers["kind"], answers["store"]) == ("flow", "zarr") else [],
    )
    for answers in MATRIX
]


@pytest.fixture(scope="module", params=KINDS)
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
    rules = ["--select", "E,F,I,B,UP,W", "--line-length", "120"]
    passes(TOOLS / "ruff", "check", "--no-cache", "--isolated", *rules, cwd=feedstock)


def test_ruff_would_format_nothing(feedstock):
    passes(TOOLS / "ruff", "format", "--no-cache", "--check", "--isolated", "--line-length", "120", cwd=feedstock)


def test_zizmor_finds_nothing_at_its_strictest(feedstock):
    passes(TOOLS / "zizmor", "--quiet", "--offline", "--persona", "auditor", ".", cwd=feedstock)


def test_actionlint_finds_nothing(feedstock):
    (actionlint,) = (ROOT / ".tools/bin").glob("actionlint-*")
    passes(actionlint, cwd=feedstock)


def test_its_own_test_passes(feedstock):
    if "apache-beam" in (feedstock / "feedstock/requirements.txt").read_text(encoding="utf-8"):
        pytest.skip("in an environment of its own: test_a_pipeline_is_made_tested_and_run_with_what_it_requires")
    passes(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=feedstock)


def written(dataset, store, inputs):
    source = str(dataset)
    if store == "icechunk":
        leave = icechunk.containers_credentials({f"file://{inputs}/": None})
        repository = icechunk.Repository.open(icechunk.local_filesystem_storage(source), None, leave)
        source = repository.readonly_session("main").store
    return xr.open_zarr(source, consolidated=False)["sst"].values.ravel().tolist()


def name_inputs(feedstock, folder):
    """Write three inputs of two days, a number a day, and name them in the recipe."""
    inputs = [str(folder / f"{month}.nc") for month in (1, 2, 3)]
    for month, path in enumerate(inputs, 1):
        time = pd.date_range(f"2020-{month:02}-01", periods=2)
        values = np.array([[month], [month + 0.5]])
        xr.Dataset({"sst": (("time", "x"), values)}, coords={"time": time}).to_netcdf(
            path, engine="h5netcdf", encoding={"sst": {"chunksizes": (1, 1)}}
        )
    recipe = feedstock / "feedstock/recipe.py"
    text = recipe.read_text(encoding="utf-8")
    named, count = re.subn(r"(?s)INPUTS = \[.*?\n\]", lambda _: f"INPUTS = {inputs}", text)
    assert count == 1
    recipe.write_text(named, encoding="utf-8")


def names_in_the_way(module):
    """What a module defines, and what its functions find by name only when they run: no recipe may take its place."""
    names = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() and not symbol.is_imported()}
    scopes = module.get_children()
    for scope in scopes:
        scopes += scope.get_children()
        if scope.get_type() == "function":
            names |= {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global()}
    return names


@pytest.mark.parametrize("kind", QUESTIONS["kind"]["choices"].values())
def test_a_recipe_never_takes_the_place_of_what_its_skeleton_uses(forge, tmp_path, kind):
    def make(name):
        answers = templates.ANSWERS | {"id": name, "kind": kind, "store": "zarr" if kind == "beam" else "icechunk"}
        copier.run_copy(str(forge), tmp_path / name, data=answers, defaults=True, quiet=True)
        (recipe,) = yaml.safe_load((tmp_path / name / "feedstock/meta.yaml").read_text(encoding="utf-8"))["recipes"]
        return recipe["object"], (tmp_path / name / "feedstock/recipe.py").read_text(encoding="utf-8")

    named, skeleton = make("sea-ice")
    assert named == "recipe:sea_ice"
    names = names_in_the_way(symtable.symtable(skeleton, "recipe.py", "exec")) - {"sea_ice"}
    for name in filter(str.islower, names):  # as ids are
        assert make(name.replace("_", "-"))[0] == f"recipe:{name}_recipe"


@pytest.mark.parametrize(
    ("name", "kind", "store"),
    [("bake", "xarray", "icechunk"), ("noaa-oisst", "xarray", "zarr"), ("bake-virtual", "virtual", "icechunk")],
)
def test_its_recipe_runs_pruned_once_its_inputs_are_named(forge, tmp_path, name, kind, store):
    folder = tmp_path / f"{name}-feedstock"
    answers = templates.ANSWERS | {"id": name, "kind": kind, "store": store}
    copier.run_copy(str(forge), folder, data=answers, defaults=True, quiet=True)
    name_inputs(folder, tmp_path)
    passes(TOOLS / "feedstock", "run", "--prune", cwd=folder)
    (dataset,) = (folder / "datasets").rglob(f"*.{store}")
    assert written(dataset, store, tmp_path) == [1, 1.5, 2, 2.5]  # a pruned run takes two inputs


@pytest.mark.parametrize("store", ["icechunk", "zarr"])
def test_an_empty_flow_leaves_the_published_dataset_where_its_source_fails(forge, tmp_path, store):
    folder = tmp_path / "noaa-oisst-feedstock"
    answers = templates.ANSWERS | {"kind": "flow", "store": store}
    copier.run_copy(str(forge), folder, data=answers, defaults=True, quiet=True)
    recipe = runpy.run_path(str(folder / "feedstock/recipe.py"))
    target = tmp_path / f"datasets/sst.{store}"

    def fails():
        raise OSError("the archive is closed")

    good = xr.Dataset({"sst": (("time", "x"), [[1.0], [2.0]])})
    bad = xr.Dataset({"sst": (("time", "x"), dask.array.from_delayed(dask.delayed(fails)(), (2, 1), float))})
    recipe["write"].fn(good, str(target), prune=False)
    before = templates.tree(target)
    with pytest.raises(OSError, match="the archive is closed"):
        recipe["write"].fn(bad, str(target), prune=False)
    assert templates.tree(target) == before
    assert written(target, store, tmp_path) == [1, 2]


def test_a_pipeline_is_made_tested_and_run_with_what_it_requires(forge, tmp_path):
    """As its README says, with its own pinned requirements, which exclude the forge's own xarray and Zarr."""
    folder = tmp_path / "noaa-oisst-feedstock"
    answers = templates.ANSWERS | {"kind": "beam", "store": "zarr"}
    copier.run_copy(str(forge), folder, data=answers, defaults=True, quiet=True)
    needed = folder / "requirements-dev.txt"
    text = needed.read_text(encoding="utf-8")
    here, count = re.subn(r"git\+https://\S+", ROOT.as_uri(), text)
    assert count == 1
    needed.write_text(here, encoding="utf-8")
    templates.begin(folder)
    python = tmp_path / "environment/bin/python"
    passes(TOOLS / "uv", "venv", "--quiet", "--python", sys.executable, tmp_path / "environment", cwd=folder)
    passes(TOOLS / "uv", "pip", "install", "--quiet", "--python", python, "--requirement", needed, cwd=folder)
    passes(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    name_inputs(folder, tmp_path)
    for command in (["lint"], ["plan", "--as", "release"], ["run", "--prune"], ["run"]):
        passes(python.with_name("feedstock"), *command, cwd=folder)
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    assert plan["stores"] == {"noaa-oisst": "zarr"}
    for ending, values in (("pruned.zarr", [1, 1.5, 2, 2.5]), ("zarr", [1, 1.5, 2, 2.5, 3, 3.5])):
        dataset = xr.open_zarr(str(folder / f"datasets/noaa-oisst/v1/noaa-oisst.{ending}"))
        assert dataset["sst"].values.ravel().tolist() == values
        assert dataset.attrs["feedstock_inputs"]["count"] == len(values) / 2


def test_what_a_pipeline_requires_is_pinned_and_is_what_was_asked_for():
    asked = (ROOT / "templates/beam/requirements.in").read_text(encoding="utf-8")
    pinned = {}
    for line in (ROOT / "templates/beam/requirements.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            (clause,) = requirement.specifier
            assert clause.operator == "=="
            pinned[requirement.name] = clause.version
    for requirement in (Requirement(line) for line in asked.splitlines() if not line.startswith("#")):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement.name


def test_what_comes_from_the_forge_is_pinned_to_the_templates_commit_where_an_update_moves_it(forge, feedstock):
    commit = templates.git(forge, "rev-parse", "HEAD")
    pinned = {
        name
        for name, content in templates.tree(feedstock).items()
        if set(re.findall(rb"(?:ocean-forge/forge\S*@?|rev: )([0-9a-f]{40})", content)) == {commit.encode()}
    }
    assert pinned >= {WORKFLOWS + name for name in ("check.yml", "register.yml", "label-state.yml")}
    assert pinned >= {".pre-commit-config.yaml", ".schemas/meta.json", "requirements-dev.txt"}
    assert not [name for name in pinned if name.startswith(("feedstock/", "tests/"))]


def test_the_schema_that_editors_use_is_the_forges_own(feedstock):
    meta = feedstock / "feedstock/meta.yaml"
    first = meta.read_text(encoding="utf-8").partition("\n")[0]
    named = meta.parent / first.removeprefix("# yaml-language-server: $schema=")
    schema = json.loads(named.read_text(encoding="utf-8"))
    assert re.sub(r"[0-9a-f]{40}", "COMMIT", schema["$ref"]).endswith(
        "/ocean-forge/forge/COMMIT/schemas/meta.schema.json"
    )
    # An editor may look for what a schema refers to beside it first, by name; yaml-language-server 1.25 does.
    assert not schema["$ref"].endswith(f"/{named.name}")
    own = json.loads((ROOT / "schemas/meta.schema.json").read_text(encoding="utf-8"))
    registry = Registry().with_resource(schema["$ref"], Resource.from_contents(own))
    editor = jsonschema.Draft202012Validator(schema, registry=registry)
    written = parse_yaml(meta.read_text(encoding="utf-8"), meta).data
    assert list(editor.iter_errors(written)) == []
    assert list(editor.iter_errors(written | {"recipes": 1}))


def test_a_person_sees_at_the_top_of_a_file_that_it_is_the_templates(feedstock):
    said_elsewhere = {"LICENSE", "README.md", ".github/pull_request_template.md"}  # README says it of all of them
    for name, content in templates.tree(feedstock).items():
        if name not in said_elsewhere and not name.startswith(
            ("feedstock/", "tests/", ".github/PULL_REQUEST_TEMPLATE/")
        ):
            assert b"copier update" in b"".join(content.splitlines()[:4]), name


def test_dependabot_leaves_the_forge_alone_and_handles_the_rest_grouped_after_a_week(feedstock):
    updates = yaml.safe_load((feedstock / ".github/dependabot.yml").read_text(encoding="utf-8"))["updates"]
    assert all(update["cooldown"] == {"default-days": 7} and update["groups"] for update in updates)
    handled = {update["package-ecosystem"]: update for update in updates}
    ignored = [row["dependency-name"] for row in handled["github-actions"]["ignore"]]
    uses = {
        used
        for path in (feedstock / WORKFLOWS).glob("*.yml")
        for used in re.findall(r"uses: ([^@\s]+)@", path.read_text(encoding="utf-8"))
    }
    forges = {used for used in uses if used.startswith("ocean-forge/forge")}
    assert forges
    assert {used for used in uses if any(fnmatch(used, pattern) for pattern in ignored)} == forges
    if "apache-beam" in (feedstock / "feedstock/requirements.txt").read_text(encoding="utf-8"):
        assert set(handled) == {"github-actions"}, "a set that was locked together moves only together"
        return
    # requirements-dev.txt, which pins the forge too, is not where Dependabot looks.
    folder = feedstock / handled["pip"]["directory"].strip("/")
    assert "ocean-forge" not in (folder / "requirements.txt").read_text(encoding="utf-8")
    assert [path.name for path in folder.glob("*requirements*")] == ["requirements.txt"]


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
