"""One template, two engines: what cookiecutter makes of the answers is what Copier makes of them."""

import ast
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import copier
import jinja2
import pytest
import yaml
from cookiecutter.exceptions import FailedHookException
from cookiecutter.main import cookiecutter
from plumbum import local

from feedstock_forge.git import github_name
from support import templates
from support.feedstocks import git

ROOT = Path(__file__).parents[1]
QUESTIONS = {
    name: question
    for name, question in yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8")).items()
    # cookiecutter makes feedstocks only.
    if not name.startswith("_") and question.get("when") is not False and name != "generates"
}
COOKIECUTTER = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))

MANY = "Ada Lovelace @ada 0000-0001-5999-4917; Łukasz O'Brien @lob;Zoë @zoe-1 0000-0002-1825-0097"
MANY += "".join(f"; Person {n} @p{n}" for n in range(40))
# No Jinja marks: with no_input, cookiecutter itself renders the answers that it is given.
HARD = [
    {
        "title": 'Größe \\n "über" alles: Schnee\'s 100 % {} <é> & 雪 🌊 — #1',
        "provider_name": "Météo-France: l'«Institut» \\ 'x'",
        "description": "- not a list: 'quotes', \"more\", back\\slash, {braces} and [brackets]",
    },
    {"maintainers": MANY, "title": "'''", "description": "*yes* & no: null", "provider_name": "#hash: x"},
    {"license": "proprietary", "license_url": "https://example.org/terms?a=1&b=%20#c"},
]


def accepts(name, **answers):
    """Whether a question's validator accepts its answer."""
    return not jinja2.Template(QUESTIONS[name].get("validator", "")).render(answers).strip()


PAIRS = [
    {"kind": kind, "store": store}
    for kind, store in itertools.product(*(QUESTIONS[name]["choices"].values() for name in ("kind", "store")))
]
# Every kind with every store that it can write, each with one of the hard answers.
MATRIX = [
    pair | hard
    for pair, hard in zip(
        (pair for pair in PAIRS if accepts("store", **pair)), itertools.cycle([{}, *HARD]), strict=False
    )
]


@pytest.fixture(scope="module")
def forge(tmp_path_factory):
    return templates.release(tmp_path_factory.mktemp("forge") / "forge")


def bake(cookies, forge, answers):
    made = cookies.bake(template=str(forge), extra_context=answers)
    if made.exception:
        raise made.exception
    return made.project_path


@pytest.mark.parametrize("answers", MATRIX, ids=lambda answers: f"{answers['kind']}-{answers['store']}")
def test_both_engines_give_the_same_bytes(forge, tmp_path, cookies, answers):
    answers = templates.ANSWERS | answers
    copied = tmp_path / "copier"
    copier.run_copy(str(forge), copied, data=answers, defaults=True, quiet=True)
    baked = bake(cookies, forge, answers)
    assert baked.name == "noaa-oisst-feedstock"
    assert templates.tree(baked) == templates.tree(copied)


def test_every_kind_is_in_the_matrix():
    assert {answers["kind"] for answers in MATRIX} == set(QUESTIONS["kind"]["choices"].values())


def test_copier_updates_what_cookiecutter_generated(tmp_path, cookies):
    forge = templates.release(tmp_path / "forge")
    feedstock = templates.begin(bake(cookies, forge, templates.ANSWERS))
    newer = templates.commit(forge, "v1.1.0")
    copier.run_update(feedstock, defaults=True, quiet=True, overwrite=True)
    assert f"@{newer} # v1.1.0" in (feedstock / ".github/workflows/register.yml").read_text(encoding="utf-8")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder that stands for github.com, over every way in which git reaches it."""
    folder = tmp_path / "github"
    templates.release(folder / "Ocean-Forge/my_forge.git")
    ways = ["https://github.com/", "https://ada@github.com/", "https://www.github.com/", "git@github.com:",
            "ssh://git@github.com/", "ssh://git@ssh.github.com:443/"]  # fmt: skip
    settings = {"GIT_CONFIG_COUNT": str(len(ways))}
    for number, way in enumerate(ways):
        settings |= {f"GIT_CONFIG_KEY_{number}": f"url.{folder.as_uri()}/.insteadOf", f"GIT_CONFIG_VALUE_{number}": way}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with local.env(**settings):  # in which Copier starts git
        yield folder


@pytest.fixture
def cookiecutter_home(tmp_path, monkeypatch):
    """Keep cookiecutter's clones and replay files out of the person's own home."""
    config = tmp_path / "cookiecutter.yaml"
    folders = {"replay_dir": str(tmp_path / "replay"), "cookiecutters_dir": str(tmp_path / "cookiecutters")}
    config.write_text(yaml.safe_dump(folders), encoding="utf-8")
    monkeypatch.setenv("COOKIECUTTER_CONFIG", str(config))


ADDRESSES = [
    "gh:Ocean-Forge/my_forge",
    "https://github.com/Ocean-Forge/my_forge",
    "https://github.com/Ocean-Forge/my_forge.git",
    "https://github.com/Ocean-Forge/my_forge/",
    "https://ada@github.com/Ocean-Forge/my_forge.git",
    "https://www.github.com/Ocean-Forge/my_forge",
    "git@github.com:Ocean-Forge/my_forge.git",
    "ssh://git@github.com/Ocean-Forge/my_forge.git",
    "ssh://git@ssh.github.com:443/Ocean-Forge/my_forge.git",
]
ASKED = {name: answer for name, answer in templates.ANSWERS.items() if name != "forge"}
WORKFLOW = ".github/workflows/register.yml"


def read_by_the_hook(address):
    """What cookiecutter's hook takes from an address, by the pattern in it."""
    hook = ast.parse((ROOT / "hooks/post_gen_project.py").read_text(encoding="utf-8"))
    (call,) = [node for node in ast.walk(hook) if isinstance(node, ast.Call) and ast.unparse(node.func) == "re.match"]
    found = re.match(ast.literal_eval(call.args[0]), address)
    return found and found[1]


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_forge_is_the_repository_on_github_that_the_template_came_from(server, tmp_path, address):
    # Copier takes an address for git's where it ends so, and a `gh:` where nothing follows the name.
    url = address if address.startswith("gh:") or address.endswith(".git") else f"git+{address}"
    copier.run_copy(url, tmp_path / "made", data=ASKED, defaults=True, quiet=True)
    text = (tmp_path / "made" / WORKFLOW).read_text(encoding="utf-8")
    assert "uses: Ocean-Forge/my_forge/.github/workflows/register.yml@" in text
    assert "forge:" not in (tmp_path / "made/.copier-answers.yml").read_text(encoding="utf-8")
    assert github_name(url) == read_by_the_hook(url) == "Ocean-Forge/my_forge"


@pytest.mark.parametrize("address", ["gh:Ocean-Forge/my_forge", "git@github.com:Ocean-Forge/my_forge.git"])
def test_cookiecutter_takes_the_forge_from_the_address_too(server, tmp_path, cookiecutter_home, address):
    baked = Path(cookiecutter(address, no_input=True, extra_context=ASKED, output_dir=str(tmp_path)))
    copier.run_copy(address, tmp_path / "copied", data=ASKED, defaults=True, quiet=True)
    assert templates.tree(baked) == templates.tree(tmp_path / "copied")


@pytest.mark.parametrize(
    "address",
    ["/home/ada/github.com/forge", "https://github.com.example.org/a/b", "https://example.org/github.com/a/b",
     "https://notgithub.com/a/b.git", "gl:a/b"],
)  # fmt: skip
def test_what_only_looks_like_github_names_no_forge(address):
    assert github_name(address) is None
    assert read_by_the_hook(address) is None


def test_from_a_clone_outside_github_the_forge_must_be_said_even_with_defaults(forge, tmp_path):
    with pytest.raises(ValueError, match='Question "forge" is required'):
        copier.run_copy(str(forge), tmp_path / "made", data=ASKED, defaults=True, quiet=True)


WRONG = {
    "id": ["", "NOAA oisst", "noaa-oisst-feedstock", "class", "1a", "a--b", "a" * 81, "größe"],
    "title": [" ", "t" * 201, "a\u200bb", "{{ 7*7 }}", "of {# x #} days", "{{ cookiecutter.id }}"],
    "description": ["", "two\nlines", "d" * 1001, "{% raw %}", "{{ 1/0 }} 'of' \"it\" \\ é"],
    "provider_name": ["", "n" * 201, "{{ nobody }}"],
    "provider_url": ["noaa.gov", "https://a.org/ b", 'https://a.org/"', "https://a", "https://a.org/{{ id }}"],
    "license": ["CC BY", ""],
    "license_url": ["", "example.org", "https://example.org/<x>", "https://a.org/{{ id }}"],
    "maintainers": [
        "",
        "{{ 7*7 }} Ada @ada",
        "Ada",
        "Ada @ada_l",
        "Ada @ada 0000-0001",
        "Ada @ada; ",
        "@ada",
        "Ada @ada 0000-0001-5999-491X0",
    ],
    "bakery": ["", "LDEO", "ldeo aws"],
    "label": ["Prod", "", "a b"],
    "chunk_size": ["16", "0 MiB", "1.5 MiB", "16 GB", ""],
    "forge": ["", "forge", "a/b/c", "-a/b"],
}


# The answers to a question that is not always asked, or that fits some others only.
ALONG = {"license_url": {"license": "proprietary"}}
REFUSED = [(name, ALONG.get(name, {}) | {name: value}) for name, values in WRONG.items() for value in values]
REFUSED += [("store", pair) for pair in PAIRS if not accepts("store", **pair)]


def test_every_question_that_can_refuse_is_asked_for_something_wrong():
    assert {name for name, question in QUESTIONS.items() if "validator" in question} == {name for name, _ in REFUSED}


@pytest.mark.parametrize(
    ("name", "wrong"), REFUSED, ids=[f"{name}-{'-'.join(wrong.values())!a}" for name, wrong in REFUSED]
)
def test_cookiecutter_refuses_what_copier_refuses_with_the_same_words(forge, tmp_path, cookies, capfd, name, wrong):
    answers = templates.ANSWERS | wrong
    with pytest.raises(ValueError, match=rf"Validation error for question '{name}': ") as refused:
        copier.run_copy(str(forge), tmp_path / "copier", data=answers, defaults=True, quiet=True)
    words = str(refused.value).partition("': ")[2].strip()
    with pytest.raises(FailedHookException):
        bake(cookies, forge, answers)
    assert f"{name}: {words}" in capfd.readouterr().err
    assert not list(tmp_path.rglob("*-feedstock"))


@pytest.mark.parametrize("words", [(), ("--output-dir", "elsewhere/deep")])
def test_cookiecutter_takes_a_path_as_it_is_typed(tmp_path, cookiecutter_home, words):
    forge = templates.release(tmp_path / "forge")
    here = tmp_path / "here"
    here.mkdir()
    command = [Path(sys.executable).with_name("cookiecutter"), "--no-input", *words, "../forge"]
    command += [f"{name}={value}" for name, value in templates.ANSWERS.items()]
    environment = os.environ | {"PWD": str(here)}  # as a shell has it
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = here.joinpath(*words[1:], "noaa-oisst-feedstock")
    assert git(forge, "rev-parse", "HEAD") in (made / WORKFLOW).read_text(encoding="utf-8")


@pytest.mark.parametrize(("kind", "store"), [("virtual", "zarr"), ("beam", "icechunk")])
def test_both_refuse_a_store_that_the_kind_cannot_write(forge, tmp_path, cookies, capfd, kind, store):
    answers = templates.ANSWERS | {"kind": kind, "store": store}
    with pytest.raises(ValueError, match="Validation error for question 'store': ") as refused:
        copier.run_copy(str(forge), tmp_path / "copier", data=answers, defaults=True, quiet=True)
    with pytest.raises(FailedHookException):
        bake(cookies, forge, answers)
    words = str(refused.value).partition("': ")[2].strip()
    assert f"store: {words}" in capfd.readouterr().err


def test_a_pipeline_writes_zarr_without_being_asked(forge, tmp_path):
    answers = {name: value for name, value in templates.ANSWERS.items() if name != "store"} | {"kind": "beam"}
    copier.run_copy(str(forge), tmp_path / "made", data=answers, defaults=True, quiet=True)
    assert "store: zarr" in (tmp_path / "made/feedstock/meta.yaml").read_text(encoding="utf-8")


def test_a_template_without_its_symbolic_link_fails_with_a_sentence(tmp_path, cookies, capfd):
    """As in a clone with core.symlinks=false."""
    forge = templates.release(tmp_path / "forge")
    link = forge / "{{cookiecutter.feedstock_name}}"
    link.unlink()
    link.write_text("template", encoding="utf-8")
    with pytest.raises(FailedHookException):
        bake(cookies, forge, templates.ANSWERS)
    assert "lost its symbolic link" in capfd.readouterr().err


def test_a_zip_download_fails_with_a_sentence(tmp_path, cookiecutter_home, capfd):
    forge = templates.release(tmp_path / "forge")
    archive = tmp_path / "forge-main.zip"
    git(forge, "archive", "--format=zip", "--prefix=forge-main/", f"--output={archive}", "HEAD")
    with pytest.raises(FailedHookException):
        cookiecutter(str(archive), no_input=True, extra_context=templates.ANSWERS, output_dir=str(tmp_path))
    assert "give cookiecutter the template's git URL" in capfd.readouterr().err
    assert not list(tmp_path.glob("*-feedstock"))


def test_a_folder_without_history_fails_with_a_sentence_in_both(tmp_path, cookies, capfd):
    forge = templates.release(tmp_path / "forge")
    (forge / ".git").rename(tmp_path / "history")
    words = "The template must come from a git repository"
    with pytest.raises(ValueError, match=words):
        copier.run_copy(str(forge), tmp_path / "made", data=templates.ANSWERS, defaults=True, quiet=True)
    with pytest.raises(FailedHookException):
        bake(cookies, forge, templates.ANSWERS)
    assert words in capfd.readouterr().err


def test_a_template_with_uncommitted_changes_cannot_be_pinned_and_says_so(tmp_path, cookies, capfd):
    forge = templates.release(tmp_path / "forge")
    (forge / "template/README.md").write_text("not committed", encoding="utf-8")
    with pytest.raises(FailedHookException):
        bake(cookies, forge, templates.ANSWERS)
    assert "commit them first" in capfd.readouterr().err


def test_both_engines_name_the_recipe_by_the_same_rule():
    (rule,) = re.findall(r"__recipe_name: (.*)", (ROOT / "copier.yml").read_text(encoding="utf-8"))
    assert COOKIECUTTER["__recipe_name"] == re.sub(r"\bid\b", "cookiecutter.id", rule)


def test_both_engines_ask_the_same_questions_with_the_same_help():
    asked = [name for name in COOKIECUTTER if not name.startswith("_") and name != "feedstock_name"]
    assert asked == list(QUESTIONS)
    for name, question in QUESTIONS.items():
        prompt = COOKIECUTTER["__prompts__"][name]
        if choices := question.get("choices"):
            assert COOKIECUTTER[name][0] == jinja2.Template(question["default"]).render(kind="xarray")
            assert sorted(COOKIECUTTER[name]) == sorted(choices.values())
            assert prompt.pop("__prompt__") == question["help"].strip()
            assert prompt == {value: words for words, value in choices.items()}
        else:
            assert prompt.startswith(question["help"].strip())
            assert question.get("placeholder", "") in prompt
            # cookiecutter cannot leave a question open; its hook takes the forge from the template's address.
            if name not in ("forge", "license_url"):
                assert COOKIECUTTER[name] == question.get("default", "")
