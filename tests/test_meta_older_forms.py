"""The files that the community wrote before: accepted with hints, or refused for a reason that one agrees with."""

from pathlib import Path

import pytest

from feedstock_forge import meta
from feedstock_forge.findings import Refused, Severity
from feedstock_forge.lint.rewrite import rewrite
from feedstock_forge.older_forms import LICENCE_SPELLING, OLD_FORM, modernise
from feedstock_forge.yaml_file import parse_yaml, read_yaml

FILES = Path(__file__).parent / "data" / "meta"
REPOSITORY = "pangeo-forge/Older_Data-feedstock"


def check(name):
    """The model (None if refused) and the findings as `line:column id`."""
    path = FILES / f"{name}.yaml"
    try:
        document = read_yaml(path)
        model, findings = meta.check(document, REPOSITORY)
    except Refused as refused:
        model, findings = None, list(refused.findings)
    return model, findings, [f"{found.place.line}:{found.place.column} {found.id}" for found in findings]


REASONS = {
    "free-licence": ["10:12 licence-unknown"],
    "wrong-provider": [
        "9:7 key-unknown",
        "10:7 key-unknown",
        "14:11 provider-role-unknown",
        "18:12 orcid-invalid",
    ],
    "no-provenance": ["1:1 key-missing"],
    "misindented": ["5:6 yaml-broken"],
    "empty": ["1:1 yaml-not-a-mapping"],
    "words": ["1:1 yaml-not-a-mapping"],
}


@pytest.mark.parametrize("name", sorted(path.stem for path in FILES.iterdir()))
def test_a_file_is_accepted_or_refused_for_its_own_reason(name):
    model, findings, places = check(name)
    errors = [place for place, found in zip(places, findings, strict=True) if found.severity is Severity.ERROR]
    assert sorted(errors) == sorted(REASONS.get(name, []))
    assert (model is None) == bool(errors)


def test_the_id_of_an_older_file_is_its_repositorys_name():
    model, *_ = check("two-recipes")
    assert (model.id, model.version) == ("older-data", "1.0")


def test_resources_of_the_first_bakeries_were_mebibytes_and_1024ths_of_a_core():
    model, _, places = check("aws-resources")
    (request,) = model.bakeries
    assert (request.label, request.on) == ("prod", ["release"])
    assert request.resources == meta.Resources(memory="4 GiB", cpu=1.0)
    assert {"25:13 meta-old-form", "26:10 meta-old-form"} <= set(places)


def test_a_flow_mapping_and_a_dict_object_in_a_list_are_read():
    model, _, places = check("dict-object")
    assert model.recipes == meta.RecipeDict(dict_object="recipe:recipes")
    assert model.bakeries[0].resources == meta.Resources(memory="5000 MiB", cpu=0.5)
    assert model.provenance.license == "CC-BY-NC-4.0"
    assert "10:12 licence-spelling" in places


def test_a_licence_that_is_an_address_becomes_a_link():
    model, *_ = check("windows")
    assert model.provenance.license == "proprietary"
    assert model.provenance.license_link.url == "https://example.org/terms.pdf"
    assert model.version == "1.10"


def test_numbers_without_a_unit_are_an_error_in_the_present_form():
    text = (FILES / "aws-resources.yaml").read_text().replace("bakery:\n  id", "bakeries:\n- label: prod\n  id")
    model, findings = meta.check(parse_yaml(text, Path("meta.yaml")), REPOSITORY)
    assert model is None
    assert "amount-invalid" in {found.id for found in findings}


def test_an_error_in_a_part_that_moved_is_placed_where_it_stands():
    text = (
        (FILES / "two-recipes.yaml").read_text().replace("  id: 'pangeo-ldeo-nsf-earthcube'", "  lable: prod\n  id: 7")
    )
    _, findings = meta.check(parse_yaml(text, Path("meta.yaml")), REPOSITORY)
    errors = {found.id: found for found in findings if found.severity is Severity.ERROR}
    assert (errors["key-unknown"].place.line, errors["key-unknown"].place.column) == (30, 3)
    assert errors["key-unknown"].fix == "did you mean `label`?"
    assert (errors["value-wrong-type"].place.line, errors["value-wrong-type"].place.column) == (31, 7)


# --- fix ---


def fixed(name):
    path = FILES / f"{name}.yaml"
    return rewrite(path.read_bytes().decode(), path, REPOSITORY)


@pytest.mark.parametrize("name", sorted(path.stem for path in FILES.iterdir()))
def test_a_fixed_file_means_the_same_keeps_its_comments_and_stays_as_it_is(name):
    path = FILES / f"{name}.yaml"
    before, after = path.read_bytes().decode(), fixed(name)
    assert rewrite(after, path, REPOSITORY) == after
    for line in before.splitlines():
        comment = line.partition(" #")[2] if " #" in line else line if line.startswith("#") else ""
        assert comment.strip() in after
    try:
        old, new = parse_yaml(before, path), parse_yaml(after, path)
    except Refused:
        assert after == before
        return
    if not isinstance(old.data, dict):
        assert after == before
        return
    assert modernise(new, "older-data")[0] == modernise(old, "older-data")[0]
    _, findings = meta.check(new, REPOSITORY)
    assert not [found for found in findings if found.rule in (OLD_FORM, LICENCE_SPELLING)]


def test_a_file_of_the_first_years_becomes_one_of_today():
    assert (
        fixed("two-recipes")
        == """\
id: older-data
version: "1.0"
# What the dataset is called
title: 'Sea ice motion'
# One sentence
description: 'Motion of sea ice from two satellites: coarse and fine grids'
# The library that the recipe used
recipes:
  # one for each grid
  - id: ice_coarse
    object: 'recipe_coarse:recipe'
  - id: ice_fine
    object: 'recipe_fine:recipe'
provenance:
  providers:
    - name: 'A space agency'
      description: 'It flies the satellites'
      roles:
        - producer
        - processor
        - host
      url: https://example.org/ice#/results?keywords=motion
  license: OGL-Canada-2.0
maintainers:
  # name and github are required
  - name: 'Josiah Carberry'
    orcid: 0000-0002-1825-0097
    github: jcarberry
# The bakery
bakeries:
  - id: 'pangeo-ldeo-nsf-earthcube' # must come from a list
    label: prod
"""
    )


def test_the_line_breaks_of_windows_stay():
    after = fixed("windows")
    assert after.count("\n") == after.count("\r\n")
    assert after.endswith("bakeries:\r\n  - id: pangeo-ldeo-nsf-earthcube\r\n    label: prod\r\n")
    assert '  license: proprietary\r\n  license_link: {url: "https://example.org/terms.pdf"}\r\n' in after


def test_keys_are_put_in_order_with_the_comments_above_them():
    text = "# yaml-language-server: $schema=x\n# Who\nmaintainers: []\n\n# Which\nid: a\nversion: '1.0'\nmore: 1\n"
    assert rewrite(text, Path("meta.yaml"), REPOSITORY) == (
        "# yaml-language-server: $schema=x\n# Which\nid: a\nversion: '1.0'\n# Who\nmaintainers: []\n\nmore: 1\n"
    )


def test_a_file_written_as_one_flow_mapping_is_left_alone():
    text = '{title: "x", bakery: {id: y}}\n'
    assert rewrite(text, Path("meta.yaml"), REPOSITORY) == text


ALIASES = {
    "maintainers": (
        "maintainers:\n  - &m\n    name: A\n    orcid: ''\n  - *m\n",
        "maintainers:\n  - &m\n    name: A\n  - *m\n",
    ),
    "provenance": ("x: &p {license: cc by 4.0, license_link: {}}\nprovenance: *p\n", None),
    "bakery": ("x: &b {id: y, resources: {memory: 4096, cpu: 1024}}\nbakery: *b\n", None),
    "recipes": ("x: &r [{dict_object: 'recipe:all'}]\nrecipes: *r\n", None),
}


@pytest.mark.parametrize("name", ALIASES)
def test_what_an_alias_repeats_is_left_alone_and_everything_else_rewritten(name):
    before, after = ALIASES[name]
    text = rewrite(f"id: older-data\nversion: 1.10\n{before}", Path("meta.yaml"), REPOSITORY)
    data = parse_yaml(text, Path("meta.yaml")).data
    assert data["version"] == "1.10"
    assert data == parse_yaml(f"id: older-data\nversion: '1.10'\n{after or before}", Path("meta.yaml")).data
