"""The manual's table of attacks and the tests that carry them out are one list."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import test_attacks

MANUAL = Path(__file__).parents[1] / "docs/security.md"
CONTROLS = {
    "test_the_workflow_of_a_hostile_feedstock_ends_like_any_other",
    "test_the_thief_could_look",
    "test_a_shell_would_have_taken_it_for_code",
    "test_an_honest_plan_gets_as_far_as_prefect",
}
"""Tests that show that the attacks mean something, and are none themselves."""


def rows() -> list[tuple[str, str, str]]:
    """The lines of the tables: attack, what stops it, test."""
    cells = [line.strip("| ").split(" | ") for line in MANUAL.read_text(encoding="utf-8").splitlines() if "::" in line]
    return [(attack, stops, test.strip("`")) for attack, stops, test in cells]


def names(module: object, file: str) -> set[str]:
    """The ids of a module's tests; those with one parameter of text, once for each value."""
    found = set()
    for name, function in vars(module).items():
        if not name.startswith("test_"):
            continue
        marks = [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
        values = marks[0].args[1] if marks else []
        found |= {f"{file}::{name}[{value}]" for value in values} or {f"{file}::{name}"}
    return found


def test_every_attack_in_the_manual_is_carried_out() -> None:
    for attack, stops, test in rows():
        assert attack
        assert stops, f"the manual does not say what stops: {attack}"
        file, _, name = test.partition("::")
        module = importlib.import_module(file.removesuffix(".py"))
        assert hasattr(module, re.sub(r"\[.*", "", name)), test
    assert len(rows()) >= 30


def test_every_attack_that_is_carried_out_is_in_the_manual() -> None:
    carried = {test for test in names(test_attacks, "test_attacks.py") if test.partition("::")[2] not in CONTROLS}
    assert carried == {test for _, _, test in rows() if test.startswith("test_attacks.py::")}
