"""What lint finds in feedstocks, staged recipes and bakeries, and what it leaves alone."""

import shutil
import textwrap
from pathlib import Path

import pytest

from feedstock_forge import bakery, licences, lint, meta
from feedstock_forge.findings import Severity
from feedstock_forge.yaml_file import parse_yaml
from support.feedstocks import git

FORGE = Path(__file__).parent / "data" / "forge"


@pytest.fixture
def forge(tmp_path):
    shutil.copytree(FORGE, tmp_path / "forge")
    return tmp_path / "forge"


@pytest.fixture
def folder(forge):
    return forge / "noaa-oisst-feedstock"


def report(*paths, **options):
    return lint.lint(paths, lint.Options(**options))


def ids(*paths, **options):
    return [finding.id for finding in report(*paths, **options).findings]


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def meta_findings(old, new):
    """The findings of meta.yaml alone, with one part of a good one changed: (line, column, id, message, fix)."""
    text = (FORGE / "noaa-oisst-feedstock" / "feedstock" / "meta.yaml").read_text()
    assert old in text
    _, found = meta.check(parse_yaml(text.replace(old, new), Path("meta.yaml")), "pangeo-forge/noaa-oisst-feedstock")
    return [(each.place.line, each.place.column, each.id, each.message, each.fix) for each in found]


GOOD_RECIPE = '  - id: avhrr-only\n    object: "recipe:avhrr_only"\n'


@pytest.mark.parametrize(
    ("recipes", "finding", "fix"),
    [
        ("  id: x\n  object: 'recipe:x'\n", "value-invalid", 'write a list: `- id: …` and `object: "recipe:…"`'),
        ("  x: 'recipe:x'\n", "value-invalid", 'write a list: `- id: …` and `object: "recipe:…"`'),
        ("  - 'recipe:x'\n", "value-invalid", 'write `- {id: …, object: "recipe:…"}`'),
        ("  - dict_object: 'recipe:a'\n  - dict_object: 'recipe:b'\n", "value-invalid", None),
        ("  - id: x\n    objekt: 'recipe:x'\n", "key-unknown", "did you mean `object`?"),
        ("  - id: x\n", "key-missing", "add `object: …`"),
        ("  - {id: x, object: 1}\n", "value-wrong-type", "write text (quote it)"),
        ("  - {id: x, object: 'recipe:x', store: zar}\n", "value-invalid", "did you mean `zarr`?"),
        ("  dict_object: recipes\n", "entry-point-invalid", None),
        ("  {dict_object: 'recipe:x', id: y}\n", "key-unknown", "remove it; the keys here are `dict_object`, `store`"),
        ("  words\n", "value-wrong-type", "write a list or a mapping"),
        ("  []\n", "value-invalid", None),
    ],
)
def test_a_wrong_recipe_gives_the_one_finding_that_a_person_expects(recipes, finding, fix):
    found = meta_findings(GOOD_RECIPE, recipes)
    kinds = {each[2] for each in found}
    assert kinds == {finding}
    if fix is not None:
        assert [each[4] for each in found] == [fix]


def test_a_misspelt_key_is_not_also_a_missing_one():
    found = meta_findings("license: CC0-1.0", "licence: CC0-1.0")
    assert [(each[2], each[4]) for each in found] == [("key-unknown", "did you mean `license`?")]


@pytest.mark.parametrize(
    ("old", "new", "finding", "fix"),
    [
        ("github: rabernat", "github: https://github.com/rabernat", "github-user-invalid", "`rabernat`"),
        ("orcid: 0000", "orcid: https://orcid.org/0000", "orcid-invalid", "`0000-0001-5999-4917`"),
        ("url: https://www", "url: www", "url-invalid", "`https://www.ncei.noaa.gov/products/"),
        ("[producer, licensor]", "[creator]", "provider-role-unknown", "write `producer`"),
        ('version: "1.0"', "version: v2", "version-invalid", '`"2.0"`'),
        ("id: noaa-oisst", "id: NOAA_OISST-feedstock", "feedstock-id-invalid", "write `NOAA_OISST`"),
        ("id: avhrr-only", "id: AVHRR only!", "recipe-id-invalid", "`AVHRR-only`"),
        ("label: dev", "label: dev\n    resources: {memory: 4096}", "amount-invalid", "such as `8 GiB`"),
        ("label: dev", "label: dev\n    resources: {cpu: 0}", "value-invalid", ""),
        ("on: [release]", "on: [releases]", "value-invalid", "did you mean `release`?"),
        ("name: NOAA NCEI", "name: ' '", "value-invalid", "write a few words"),
    ],
)
def test_the_fix_is_what_to_write(old, new, finding, fix):
    (found,) = meta_findings(old, new)
    assert found[2] == finding
    assert fix in found[4]


def test_one_event_may_stand_without_a_list():
    assert meta_findings("on: [release]", "on: release") == []


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("cc-by-4.0", "CC-BY-4.0"),
        ("CC BY-SA 4.0", "CC-BY-SA-4.0"),
        ("CC-BY-NC v.4.0", "CC-BY-NC-4.0"),
        ("Creative Commons Attribution 4.0 International", "CC-BY-4.0"),
        ("Creative Commons Attribution Non-Commercial Share Alike 4.0 International", "CC-BY-NC-SA-4.0"),
        ("https://creativecommons.org/licenses/by-nd/4.0/", "CC-BY-ND-4.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/legalcode", "CC0-1.0"),
        ("CC0 1.0 Universal", "CC0-1.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("The MIT License", "MIT"),
        ("mit OR cc-by-4.0", "MIT OR CC-BY-4.0"),
        ("LicenseRef-NASA", "LicenseRef-NASA"),
        ("PROPRIETARY", "proprietary"),
    ],
)
def test_a_licence_is_understood_in_the_spellings_of_people(written, meant):
    assert licences.understand(written) == licences.Terms(meant)


def test_the_address_of_terms_is_understood_as_their_link():
    assert licences.understand("https://example.org/terms") == licences.Terms(
        "proprietary", "https://example.org/terms"
    )


@pytest.mark.parametrize(
    ("written", "suggested"),
    [
        ("Open Data", "`license: proprietary`"),
        ("TBD", "`license: proprietary`"),
        ("public domain", "`license: proprietary`"),
        ("CC-BY", "`CC-BY-4.0`"),
        ("CC-BY-NC-SA", "`CC-BY-NC-SA-4.0`"),
        ("CC-BY-5.0", "`CC-BY-4.0`"),
        ("ODbL", "`ODbL-1.0`"),
        ("See https://example.org/terms, please", "{url: https://example.org/terms}"),
    ],
)
def test_a_licence_that_would_be_a_guess_is_left_to_the_person(written, suggested):
    assert licences.understand(written) is None
    assert suggested in licences.suggestion(written)


def test_findings_are_in_the_order_of_the_file():
    text = "title: 1\nid: A\nversion: x\n"
    _, found = meta.check(parse_yaml(text, Path("meta.yaml")), "a/b")
    assert found


# --- what a path stands for ---


def test_a_feedstock_is_known_by_its_folder_its_inner_folder_and_its_file(folder, monkeypatch):
    for path in (folder, folder / "feedstock", folder / "feedstock" / "meta.yaml"):
        assert (report(path).feedstocks, report(path).findings) == (1, [])
    monkeypatch.chdir(folder / "feedstock")
    for path in (Path(), Path("meta.yaml"), Path("..")):
        assert (report(path).feedstocks, report(path).findings) == (1, [])


def test_a_folder_of_feedstocks_is_all_of_them(forge):
    shutil.copytree(forge / "noaa-oisst-feedstock", forge / "many" / "a-feedstock")
    shutil.copytree(forge / "noaa-oisst-feedstock", forge / "many" / "b-feedstock")
    (forge / "many" / "notes").mkdir()
    assert report(forge / "many").feedstocks == 2


def test_one_feedstock_named_twice_is_read_once(folder):
    assert report(folder, folder / "feedstock").feedstocks == 1


@pytest.fixture
def staged(tmp_path, folder):
    recipes = tmp_path / "staged-recipes" / "recipes"
    shutil.copytree(folder / "feedstock", recipes / "noaa-oisst")
    return recipes


def test_staged_recipes_are_read_from_the_repository_the_folder_or_the_file(staged):
    for path in (staged.parent, staged, staged / "noaa-oisst", staged / "noaa-oisst" / "meta.yaml"):
        assert (report(path).feedstocks, report(path).findings) == (1, [])


def test_a_staged_recipe_is_named_as_its_folder(staged):
    (staged / "noaa-oisst").rename(staged / "NOAA_OISST")
    assert ids(staged) == []
    (staged / "NOAA_OISST").rename(staged / "oisst")
    assert ids(staged) == ["meta-id-other-repository"]


def test_the_template_of_a_forge_is_not_linted(forge):
    shutil.copytree(forge / "noaa-oisst-feedstock", forge / "template")
    change(forge / "template" / "feedstock" / "meta.yaml", "id: noaa-oisst", "id: {{ id }}")
    assert (report(forge).feedstocks, report(forge).bakeries, ids(forge)) == (0, 1, [])


def test_the_repository_is_known_from_git_and_from_the_option(folder):
    git(folder, "init", "--quiet")
    git(folder, "remote", "add", "origin", "https://github.com/pangeo-forge/other-feedstock.git")
    assert ids(folder) == ["meta-id-other-repository"]
    assert ids(folder, repository="pangeo-forge/noaa-oisst-feedstock") == []


def test_a_clone_under_another_name_is_not_blamed(folder):
    renamed = folder.rename(folder.with_name("clone"))
    assert ids(renamed) == []


def test_a_feedstock_without_meta_yaml_hears_that_it_is_missing(folder):
    (folder / "feedstock" / "meta.yaml").unlink()
    assert ids(folder) == ["file-missing"]


def test_a_meta_yaml_by_itself_is_read_without_its_recipes(tmp_path, folder):
    alone = tmp_path / "noaa-oisst_meta.yaml"
    shutil.copy(folder / "feedstock" / "meta.yaml", alone)
    found = report(alone)
    assert found.findings == []
    assert any("Recipes were not looked for" in note for note in found.notes)


# --- recipes ---


@pytest.mark.parametrize(
    "code",
    [
        "sst = 1",
        "sst: object = 1",
        "def sst(): ...",
        "async def sst(): ...",
        "class sst: ...",
        "import sst",
        "import sst.more",
        "from x import sst",
        "from x import y as sst",
        "a, (sst, *b) = 1, (2, 3)",
        "if 1:\n    sst = 1\nelse:\n    sst = 2",
        "try:\n    from x import sst\nexcept ImportError:\n    pass",
        "try:\n    pass\nexcept ImportError:\n    sst = None",
        "with open('x') as sst: ...",
        "for sst in []: ...",
        "match 1:\n    case 1:\n        sst = 1",
        "from x import *",
        "def __getattr__(name): ...",
        "globals()['sst'] = 1",
    ],
)
def test_an_entry_point_is_found_by_reading(code, folder):
    (folder / "feedstock" / "recipe.py").write_text(code + "\nraise SystemExit('this file was run')\n")
    change(folder / "feedstock" / "meta.yaml", "recipe:avhrr_only", "recipe:sst")
    assert ids(folder) == []


@pytest.mark.parametrize(
    "code", ["def f():\n    sst = 1", "class A:\n    sst = 1", "x.sst = 1", "print(sst)", "del sst", ""]
)
def test_a_name_that_only_looks_like_it_is_none(code, folder):
    (folder / "feedstock" / "recipe.py").write_text(code)
    change(folder / "feedstock" / "meta.yaml", "recipe:avhrr_only", "recipe:sst")
    assert ids(folder) == ["recipe-object-missing"]


def test_a_package_and_a_module_in_it_are_found(folder):
    package = folder / "feedstock" / "recipes"
    package.mkdir()
    (package / "__init__.py").write_text("sst = 1\n")
    (package / "daily.py").write_text("sst = 1\n")
    path = folder / "feedstock" / "meta.yaml"
    change(path, "recipe:avhrr_only", "recipes:sst")
    assert ids(folder) == []
    change(path, "recipes:sst", "recipes.daily:sst.flow")
    assert ids(folder) == []


def test_a_recipes_finding_stands_at_its_line_in_meta_yaml(folder):
    change(folder / "feedstock" / "meta.yaml", "recipe:avhrr_only", "recipe:avhrr")
    (found,) = report(folder).findings
    assert (found.place.line, found.place.column, found.fix) == (7, 13, "did you mean `avhrr_only`?")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("xarray==2026.4", []),
        ("xarray[io]~=2026.4  # why", []),
        ("xarray>=2025,<2027 ; python_version < '3.13'", []),
        ("-r more.txt\n--index-url https://example.org\n# words\n\n", []),
        ("icechunk @ git+https://github.com/earth-mover/icechunk@" + "1" * 40, []),
        ("xarray==2026.4 \\\n    --hash=sha256:" + "0" * 64, []),
        ("xarray", ["requirement-unbounded"]),
        ("xarray>=2025", ["requirement-unbounded"]),
        ("xarray!=2025.1", ["requirement-unbounded"]),
        ("icechunk @ git+https://github.com/earth-mover/icechunk@main", ["requirement-unbounded"]),
        ("git+https://github.com/earth-mover/icechunk", ["requirement-unbounded"]),
        ("-e .", ["requirement-unbounded"]),
        ("xarray = 2025", ["requirement-invalid"]),
    ],
)
def test_requirements_are_locked_or_bounded(lines, expected, folder):
    (folder / "feedstock" / "requirements.txt").write_text(lines + "\n")
    assert ids(folder) == expected


def test_a_lock_file_bounds_every_requirement(folder):
    (folder / "feedstock" / "requirements.txt").write_text("xarray\n")
    (folder / "feedstock" / "pylock.toml").write_text("")
    assert ids(folder) == []


# --- text ---


@pytest.mark.parametrize(
    "character", ["\u202e", "\u2066", "\u200b", "\u00ad", "\ufeff", "\x1b", "\U000e0041", "a\u200db"]
)
def test_a_hidden_character_is_found_at_its_place(character, folder):
    (folder / "README.md").write_text(f"# NOAA\n\nSea {character} surface\n", encoding="utf-8")
    (found,) = report(folder).findings
    assert found.id == "text-hidden-character"
    assert (found.place.line, found.place.column) == (3, 5 + character.startswith("a"))


def test_what_people_write_and_see_is_no_hidden_character(folder):
    words = "Œuvre 海面水温 می\u200cخواهم 👩\u200d🔬 – “ÅÄÖ”\t|\r\n"  # noqa: RUF001
    (folder / "README.md").write_text(words, encoding="utf-8")
    assert ids(folder) == []


# --- bakeries ---


def asks(forge, *requests):
    path = forge / "noaa-oisst-feedstock" / "feedstock" / "meta.yaml"
    text = path.read_text()
    listed = "".join(f"  - {request}\n" for request in requests)
    path.write_text(f"{text[: text.index('bakeries:')]}bakeries:\n{listed}")
    return ids(forge / "noaa-oisst-feedstock", bakeries=bakery.Bakeries.at(forge / "bakeries"))


PROD = "id: ldeo.aws.us-west-2, label: prod"


def test_a_grant_allows_its_events_and_its_limits(forge):
    assert asks(forge, f"{{{PROD}, resources: {{memory: 64 GiB, cpu: 16}}}}") == []
    assert asks(forge, f"{{{PROD}, on: [merge]}}") == ["label-event-not-granted"]
    grant = forge / "bakeries" / "ldeo.aws.us-west-2" / "grants" / "noaa-oisst.yaml"
    grant.write_text(f"{grant.read_text()}limits: {{memory: 8 GiB}}\n")
    assert asks(forge, f"{{{PROD}, resources: {{memory: 16 GiB}}}}") == ["resources-over-limit"]


def test_a_revoked_grant_is_none(forge):
    grant = forge / "bakeries" / "ldeo.aws.us-west-2" / "grants" / "noaa-oisst.yaml"
    grant.write_text(f"{grant.read_text()}revoked: true\n")
    assert asks(forge, f"{{{PROD}}}") == ["label-not-granted"]


def test_memory_and_cores_are_each_found_at_their_own_value(forge):
    asks(forge, "{id: ldeo.aws.us-west-2, label: dev, resources: {memory: 8 GiB, cpu: 2}}")
    found = report(forge / "noaa-oisst-feedstock", bakeries=bakery.Bakeries.at(forge / "bakeries")).findings
    where = [(each.id, each.place.column) for each in found]
    assert where == [
        ("resources-over-limit", 62),
        ("resources-over-limit", 74),
    ]


def test_a_broken_bakery_is_found_in_its_own_file_once(forge):
    (forge / "bakeries" / "ldeo.aws.us-west-2" / "bakery.yaml").write_text("description: [\n")
    shutil.copytree(forge / "noaa-oisst-feedstock", forge / "more" / "noaa-oisst-feedstock")
    paths = (forge / "noaa-oisst-feedstock", forge / "more")
    (found,) = report(*paths, bakeries=bakery.Bakeries.at(forge / "bakeries")).findings
    assert found.id == "yaml-broken"
    assert found.place.file.endswith("bakery.yaml")


def test_without_a_database_labels_are_not_looked_up_and_that_is_said(forge):
    found = report(forge / "noaa-oisst-feedstock")
    assert any("there is no bakery database" in note for note in found.notes)


# --- releases ---


def test_a_release_of_unchanged_recipes_needs_no_new_version(folder):
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "First")
    git(folder, "tag", "v1.0.0")
    (folder / "README.md").write_text("# More\n")
    git(folder, "commit", "--quiet", "--all", "--message", "Say more")
    assert ids(folder, release="v1.0.1") == []
    (folder / "feedstock" / "recipe.py").write_text("avhrr_only = 1\n")
    git(folder, "commit", "--quiet", "--all", "--message", "Change the recipe")
    (found,) = report(folder, release="v1.0.1").findings
    assert found.id == "version-not-moved"
    assert found.severity is Severity.WARNING
    assert found.fix == 'write `version: "1.1"` to replace the dataset, or `"2.0"` to keep the old one beside it'
    assert ids(folder) == []


def test_the_first_release_needs_no_history(folder):
    assert ids(folder, release="v1.0.0") == []
    assert ids(folder, release="first-light") == []


def test_the_keys_of_a_fixed_feedstock_are_what_its_readers_expect(folder):
    path = folder / "feedstock" / "meta.yaml"
    path.write_text(textwrap.dedent(path.read_text().replace("CC0-1.0", "CC0")))
    assert lint.fix([folder], lint.Options()) == [path]
    assert lint.fix([folder], lint.Options()) == []
    assert ids(folder) == []


def test_a_link_is_never_rewritten(folder, tmp_path):
    path = folder / "feedstock" / "meta.yaml"
    change(path, "CC0-1.0", "CC0")
    path.rename(folder / "feedstock" / "real.yaml")
    path.symlink_to("real.yaml")
    assert lint.fix([folder], lint.Options()) == []
