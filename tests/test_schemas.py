"""The JSON Schemas in schemas/ are those of the models, and tell editors what the models would refuse."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from feedstock_forge.schemas import generate
from feedstock_forge.yaml_file import parse_yaml

ROOT = Path(__file__).parents[1]
FORGE = ROOT / "tests" / "data" / "forge"
META = FORGE / "noaa-oisst-feedstock" / "feedstock" / "meta.yaml"


def errors(name, data):
    schema = json.loads((ROOT / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return list(jsonschema.Draft202012Validator(schema).iter_errors(data))


def test_the_committed_schemas_are_those_of_the_models():
    committed = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "schemas").iterdir()}
    assert committed == generate(), "run `make schemas`"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("meta", META),
        ("bakery", FORGE / "bakeries" / "ldeo.aws.us-west-2" / "bakery.yaml"),
        ("bakery", ROOT / "bakeries" / "local" / "bakery.yaml"),
        ("grant", FORGE / "bakeries" / "ldeo.aws.us-west-2" / "grants" / "noaa-oisst.yaml"),
    ],
)
def test_a_good_file_satisfies_its_schema(name, path):
    assert errors(name, parse_yaml(path.read_text(encoding="utf-8"), path).data) == []


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("title: NOAA", "titel: NOAA"),
        ('version: "1.0"', "version: 1.0"),
        ('version: "1.0"', 'version: "1.0.0"'),
        ("id: noaa-oisst", "id: NOAA_OISST"),
        ("recipe:avhrr_only", "avhrr_only"),
        ("roles: [producer, licensor]", "roles: [provider]"),
        ("url: https://www", "url: www"),
        ("orcid: 0000-0001-5999-4917", "orcid: 0000"),
        ("github: rabernat", "github: '@rabernat'"),
        ("on: [release]", "on: [released]"),
        ("label: dev", "label: dev\n    resources: {memory: 4096}"),
        ("bakeries:\n  - id", "bakery:\n    id"),
    ],
)
def test_an_editor_marks_what_lint_refuses(good, bad):
    text = META.read_text(encoding="utf-8")
    assert good in text
    assert errors("meta", parse_yaml(text.replace(good, bad), META).data)


def test_the_files_of_this_repository_name_their_schema():
    for path in (ROOT / "bakeries").glob("*/bakery.yaml"):
        named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text(encoding="utf-8"))
        assert named
        assert (path.parent / named[1]).resolve() == ROOT / "schemas" / "bakery.schema.json"


def test_the_meta_yaml_of_the_template_names_a_schema_that_an_update_moves():
    meta = ROOT / "template/feedstock/meta.yaml"
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", meta.read_text(encoding="utf-8"))
    assert named
    schema = json.loads((meta.parent / named[1]).read_text(encoding="utf-8"))
    assert re.fullmatch(r"https://\S+/\{\{.*_forge_commit \}\}/schemas/meta.schema.json", schema["$ref"])
