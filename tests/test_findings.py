"""Every finding has its section in the manual, and the manual's examples are true."""

import importlib
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

import feedstock_forge
from feedstock_forge import bakery, lint
from feedstock_forge.findings import (
    DOCUMENTATION,
    RULES,
    Finding,
    Place,
    Severity,
    as_data,
    did_you_mean,
    of_data,
    rule,
    visible,
)

ROOT = Path(__file__).parents[1]
FORGE = Path(__file__).parent / "data" / "forge"

# What the manual cannot show by an example, and the test that shows it instead.
SHOWN_ELSEWHERE = {
    "workflow-changed": "test_lint_template.py",
    "template-not-rendered": "test_lint_template.py",
    "bakeries-missing": "test_lint_cli.py",
    "finding-unknown": "test_lint_cli.py",
}


# What runs when it is imported, or needs Prefect; none declares a rule.
PROGRAMS = ("feedstock_forge.__main__", "feedstock_forge.flow", "feedstock_forge.task_runner")


@dataclass
class Section:
    text: str

    def blocks(self, name):
        """The code under **Wrong** or **Right**, as (language, text)."""
        _, _, after = self.text.partition(f"**{name}**\n")
        return re.findall(r"\A\s*```(\w*)\n(.*?)^```$", after, re.MULTILINE | re.DOTALL)


def sections():
    parts = re.split(r"^## (.*)$", (ROOT / DOCUMENTATION).read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = zip(parts[1::2], parts[2::2], strict=True)
    return {title.strip("`"): Section(text) for title, text in named if title.startswith("`")}


def all_rules():
    for module in pkgutil.walk_packages(feedstock_forge.__path__, "feedstock_forge."):
        if module.name not in PROGRAMS:
            importlib.import_module(module.name)
    return {name: found for name, found in RULES.items() if not name.startswith("test-")}


MANUAL = sections()


def test_every_id_has_a_section_and_every_section_an_id():
    assert set(MANUAL) == set(all_rules())


def test_no_section_stands_twice():
    titles = re.findall(r"^## (.*)$", (ROOT / DOCUMENTATION).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("finding_id", sorted(MANUAL))
def test_the_manual_says_who_can_act_and_how_much_it_weighs(finding_id):
    found = all_rules()[finding_id]
    assert f"**Who:** {found.who}" in MANUAL[finding_id].text
    if said := re.search(r"\*\*Severity:\*\* (\w+)", MANUAL[finding_id].text):
        assert said[1] == found.severity


def lint_rules():
    """The ids that lint can give: those declared in the modules that it is made of."""
    source = ROOT / "shared_workflows" / "feedstock_forge"
    modules = ["yaml_file", "models", "quantities", "meta", "older_forms", "bakery", "entry_points", "lint/*"]
    text = "\n".join(file.read_text() for module in modules for file in source.glob(f"{module}.py"))
    return sorted(set(re.findall(r'= rule\(\s*"([a-z-]+)"', text)))


@pytest.fixture
def forge(tmp_path):
    shutil.copytree(FORGE, tmp_path / "forge")
    return tmp_path / "forge"


def apply(block, forge):
    """Put an example into a good feedstock; returns the arguments of `feedstock lint` where the example has them."""
    language, text = block
    feedstock = forge / "noaa-oisst-feedstock"
    if language == "sh":
        lines = [line for line in text.splitlines() if not line.startswith("feedstock lint")]
        commands = [line for line in text.splitlines() if line.startswith("feedstock lint")]
        author = {
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@b",
        }
        script = "set -euo pipefail\n" + "\n".join(lines)
        subprocess.run(["bash", "-c", script], cwd=feedstock, check=True, env={**os.environ, **author})
        return shlex.split(commands[0])[2:] if commands else []
    named = re.match(r"# (\S+/\S+)\n", text)
    name = named[1] if named else "feedstock/meta.yaml"
    path = (forge if name.startswith("bakeries/") else feedstock) / name
    if named:
        text = text[named.end() :]
    if path.name in ("meta.yaml", "bakery.yaml") or path.parent.name == "grants":
        text = with_keys(path.read_text(), text)
    path.write_text(text)
    return []


def with_keys(base, fragment):
    """A file in which the fragment stands in place of the keys that it has."""
    keys = re.findall(r"^(\w+):", fragment, re.MULTILINE)
    blocks = re.split(r"^(?=\w+:)", base, flags=re.MULTILINE)
    kept = [block for block in blocks if block.partition(":")[0] not in keys]
    place = next((index for index, block in enumerate(blocks) if block.partition(":")[0] in keys), len(kept))
    return "".join([*kept[:place], fragment, *kept[place:]])


def findings(forge, arguments):
    feedstock = forge / "noaa-oisst-feedstock"
    if not (feedstock / ".git").exists():
        (feedstock / ".git").mkdir()
        origin = '[remote "origin"]\n\turl = https://github.com/pangeo-forge/noaa-oisst-feedstock.git\n'
        (feedstock / ".git" / "config").write_text(origin, encoding="utf-8")
    release, paths = None, [forge, feedstock]
    if arguments[:1] == ["--release"]:
        release = arguments[1]
    elif arguments:
        paths = [Path(os.path.normpath(feedstock / argument)) for argument in arguments]
    options = lint.Options(bakeries=bakery.Bakeries.at(forge / "bakeries"), release=release)
    return lint.lint(paths, options).findings


def test_the_example_that_the_others_change_is_without_a_finding(forge):
    assert findings(forge, []) == []


@pytest.mark.parametrize("finding_id", lint_rules())
def test_each_finding_of_lint_fires_on_its_bad_example_and_not_on_its_good_one(finding_id, tmp_path):
    if finding_id in SHOWN_ELSEWHERE:
        assert finding_id in (Path(__file__).parent / SHOWN_ELSEWHERE[finding_id]).read_text()
        return
    section = MANUAL[finding_id]
    (wrong,) = section.blocks("Wrong")
    shutil.copytree(FORGE, tmp_path / "wrong")
    fired = findings(tmp_path / "wrong", apply(wrong, tmp_path / "wrong"))
    assert finding_id in {finding.id for finding in fired}
    for finding in fired:
        if finding.id == finding_id:
            assert all([finding.message, finding.fix, finding.rule.why])
            assert finding.place is not None
            assert Path(finding.place.file).is_relative_to(tmp_path)
    for right in section.blocks("Right"):
        shutil.copytree(FORGE, tmp_path / "right")
        quiet = findings(tmp_path / "right", apply(right, tmp_path / "right"))
        assert [finding.id for finding in quiet] == []


def test_an_id_is_declared_once():
    rule("test-once", "…")
    with pytest.raises(ValueError, match="declared twice"):
        rule("test-once", "…")


def test_a_finding_is_the_same_in_a_process_that_has_not_declared_its_rule(monkeypatch):
    found = RULES["key-unknown"].at(Place("meta.yaml", 3), "unknown key `licence`", "did you mean `license`?")
    data = json.loads(json.dumps(as_data(found)))
    assert of_data(data) == found
    monkeypatch.delitem(RULES, "key-unknown")
    assert of_data(data) == found
    assert "key-unknown" not in RULES
    for wrong in ({"id": "x\n::add-mask::"}, {"severity": "fatal"}, {"who": "nobody"}):
        with pytest.raises(ValueError, match=r"finding id|is not a valid"):
            of_data(data | {"rule": data["rule"] | wrong})


def test_what_a_stranger_wrote_is_short_and_visible_in_a_message():
    found = rule("test-visible", "…").at(None, "\x1b[2J\u202egnp.exe" + "x" * 10_000, "a\n  b")
    assert found.message.startswith("\\x1b[2J\\u202egnp.exe")
    assert len(found.message) < 500
    assert found.fix == "a b"


def test_a_place_reads_as_editors_write_it():
    assert str(Place("meta.yaml", 3, 7)) == "meta.yaml:3:7"
    assert str(Place("meta.yaml")) == "meta.yaml"
    assert str(Place("::error::x/meta.yaml", 1, 1)) == "./::error::x/meta.yaml:1:1"


def test_a_near_word_is_suggested_and_otherwise_the_known_ones():
    assert did_you_mean("licence", ["license", "title"]) == "did you mean `license`?"
    assert did_you_mean("DEV", ["dev", "prod"]) == "did you mean `dev`?"
    assert did_you_mean("zzz", ["dev", "prod"]) == "write one of `dev`, `prod`"
    assert did_you_mean("x" * 1_000_000, []) == "remove it"


def test_a_finding_knows_its_section():
    found = Finding(RULES["orcid-invalid"], "…", "…")
    assert found.documentation == "docs/findings.md#orcid-invalid"
    assert found.severity is Severity.ERROR


def test_visible_text_stays_as_it_is():
    assert visible("Aurélie, °C 海") == "Aurélie, °C 海"
