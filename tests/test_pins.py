"""The table of action pins, and everything that uses an action."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
USES = re.compile(r"^\s*(?:- )?uses: ([\w.-]+/[\w.-]+)@(.+)$", re.MULTILINE)
TABLE = dict(
    re.findall(r"^(\S+): (.+)$", (ROOT / "shared_workflows/pins.yaml").read_text(encoding="utf-8"), re.MULTILINE)
)
FILES = [
    path
    for folder in (".github", "shared_workflows", "template/.github", "staged/.github")
    for path in sorted((ROOT / folder).rglob("*.yml"))
    if USES.search(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_action_is_used_at_the_commit_and_version_of_the_table(path):
    used = USES.findall(path.read_text(encoding="utf-8"))
    assert used == [(action, TABLE.get(action)) for action, _ in used]


def test_the_table_names_full_commits_of_actions_in_use_only():
    assert all(re.fullmatch(r"[0-9a-f]{40} # v\d+\.\d+\.\d+", pin) for pin in TABLE.values())
    assert set(TABLE) == {action for path in FILES for action, _ in USES.findall(path.read_text(encoding="utf-8"))}
