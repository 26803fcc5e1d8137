"""One template, two engines: what cookiecutter makes of the answers is what Copier makes of them."""

import json
from pathlib import Path

import copier
import pytest
import yaml
from cookiecutter.exceptions import FailedHookException
from cookiecutter.main import cookiecutter

from support import templates

ROOT = Path(__file__).parents[1]
QUESTIONS = {
    name: question
    for name, question in yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8")).items()
    if not name.startswith("_") and question.get("when") is not False
}
COOKIECUTTER = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))

# No Jinja marks: with no_input, cookiecutter itself renders the answers that it is given.
AWKWARD = {
    "title": 'Größe \\n "über" alles: Schnee\'s 100 % {} <é> & 雪 🌊 — #1',
    "provider_name": "Météo-France: l'«Institut» \\ 'x'",
    "description": "- not a list: 'quotes', \"more\", back\\slash, {braces} and [brackets]",
}
MANY = "Ada Lovelace @ada 0000-0001-5999-4917; Łukasz O'Brien @lob;Zoë @zoe-1 0000-0002-1825-0097"
MANY += "".join(f"; Person {n} @p{n}" for n in range(40))
MATRIX = [
    {"kind": "xarray", "store": "icechunk"},
    {"kind": "xarray", "store": "zarr", **AWKWARD},
    {"kind": "flow", "store": "icechunk", "maintainers": MANY, **AWKWARD},
    {"kind": "flow", "store": "zarr", "license": "proprietary", "license_url": "https://example.org/terms"},
]


@pytest.fixture(scope="module")
def forge(tmp_path_factory):
    return templates.release(tmp_path_factory.mktemp("forge") / "forge")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Keep cookiecutter's replay files out of the person's own home."""
    config = tmp_path / "cookiecutter.yaml"
    config.write_text(
        yaml.safe_dump({"replay_dir": str(tmp_path / "replay"), "cookiecutters_dir": str(tmp_path / "cc")})
    )
    monkeypatch.setenv("COOKIECUTTER_CONFIG", str(config))


def bake(forge, into, answers):
    return Path(cookiecutter(str(forge), no_input=True, extra_context=answers, output_dir=str(into)))


@pytest.mark.parametrize("answers", MATRIX, ids=lambda answers: f"{answers['kind']}-{answers['store']}")
def test_both_engines_give_the_same_bytes(forge, tmp_path, answers):
    answers = templates.ANSWERS | answers
    copied = tmp_path / "copier"
    copier.run_copy(str(forge), copied, data=answers, defaults=True, quiet=True)
    baked = bake(forge, tmp_path, answers)
    assert baked.name == "noaa-oisst-feedstock"
    assert templates.tree(baked) == templates.tree(copied)


def test_copier_updates_what_cookiecutter_generated(forge, tmp_path):
    forge = templates.release(tmp_path / "forge")
    feedstock = templates.begin(bake(forge, tmp_path, templates.ANSWERS))
    newer = templates.commit(forge, "v1.1.0")
    copier.run_update(feedstock, defaults=True, quiet=True, overwrite=True)
    assert f"@{newer} # v1.1.0" in (feedstock / ".github/workflows/register.yml").read_text(encoding="utf-8")


WRONG = {
    "id": ["", "NOAA oisst", "noaa-oisst-feedstock", "class", "1a", "a--b"],
    "title": [" "],
    "provider_url": ["noaa.gov"],
    "license": ["CC BY"],
    "maintainers": ["Ada", "Ada @ada_l", "Ada @ada 0000-0001"],
    "label": ["Prod"],
    "forge": ["", "forge"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_cookiecutter_refuses_what_copier_refuses_with_the_same_words(forge, tmp_path, capfd, name, value):
    answers = templates.ANSWERS | {name: value}
    with pytest.raises(ValueError, match=rf"Validation error for question '{name}': ") as refused:
        copier.run_copy(str(forge), tmp_path / "copier", data=answers, defaults=True, quiet=True)
    words = str(refused.value).partition("': ")[2].strip()
    with pytest.raises(FailedHookException):
        bake(forge, tmp_path, answers)
    assert f"{name}: {words}" in capfd.readouterr().err
    assert not list(tmp_path.glob("*-feedstock"))


def test_a_template_without_its_symbolic_link_fails_with_a_sentence(tmp_path, capfd):
    """As in a zip download, or in a clone with core.symlinks=false."""
    forge = templates.release(tmp_path / "forge")
    link = forge / "{{cookiecutter.feedstock_name}}"
    link.unlink()
    link.write_text("template", encoding="utf-8")
    with pytest.raises(FailedHookException):
        bake(forge, tmp_path, templates.ANSWERS)
    assert "lost its symbolic link" in capfd.readouterr().err


def test_a_template_with_uncommitted_changes_cannot_be_pinned_and_says_so(tmp_path, capfd):
    forge = templates.release(tmp_path / "forge")
    (forge / "template/README.md").write_text("not committed", encoding="utf-8")
    with pytest.raises(FailedHookException):
        bake(forge, tmp_path, templates.ANSWERS)
    assert "commit them first" in capfd.readouterr().err


def test_both_engines_ask_the_same_questions_with_the_same_help():
    asked = [name for name in COOKIECUTTER if not name.startswith("_") and name != "feedstock_name"]
    assert asked == list(QUESTIONS)
    for name, question in QUESTIONS.items():
        prompt = COOKIECUTTER["__prompts__"][name]
        if choices := question.get("choices"):
            assert COOKIECUTTER[name][0] == question["default"]
            assert sorted(COOKIECUTTER[name]) == sorted(choices.values())
            assert prompt.pop("__prompt__") == question["help"].strip()
            assert prompt == {value: words for words, value in choices.items()}
        else:
            assert prompt.startswith(question["help"].strip())
            assert question.get("placeholder", "") in prompt
            if name != "forge":  # which cookiecutter's hook takes from the template's address
                assert COOKIECUTTER[name] == question.get("default", "")
