"""The README and the manual tell the truth: about commands, files, actions and what the demonstration prints."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from feedstock_forge.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")


def test_the_readme_shows_the_steps_that_the_demonstration_takes() -> None:
    story = (ROOT / "demo/story.py").read_text(encoding="utf-8").replace("{TAG}", "v1.0.0")
    steps = re.findall(r'self\.step\(f?"(.*?)"\)', story)
    assert re.findall(r"^\d\. (.*)$", README, re.MULTILINE) == steps


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (page.parent / (link.split("#")[0] or page.name)).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    commands = set(re.findall(r"(?:^|`|\$ )feedstock ([a-z]+)\b", text, re.MULTILINE))
    assert commands - set(COMMANDS) == set()
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)(?=`|$| +#| [A-Z]+=)", text, re.MULTILINE))
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert targets - known == set()


def test_every_action_and_each_of_its_inputs_says_what_it_is() -> None:
    actions = sorted((ROOT / "shared_workflows").glob("*/action.yml"))
    assert len(actions) >= 5
    for action in actions:
        described = yaml.safe_load(action.read_text(encoding="utf-8"))
        assert described["description"], action
        for name, entry in {**described.get("inputs", {}), **described.get("outputs", {})}.items():
            assert entry.get("description"), f"{action.parent.name}: {name}"


def test_every_question_of_the_template_has_help() -> None:
    questions = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    asked = {
        name: question for name, question in questions.items() if name[0] != "_" and question.get("when") is not False
    }
    assert len(asked) >= 10
    assert [name for name, question in asked.items() if not question.get("help")] == []


def test_ci_runs_on_the_oldest_python_that_the_package_promises() -> None:
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    oldest = metadata["project"]["requires-python"].removeprefix(">=")
    assert oldest in ci["jobs"]["test"]["strategy"]["matrix"]["python"]
