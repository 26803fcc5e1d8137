"""What GitHub's own parser says of workflows and actions, and which of them an event starts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .actions import FORGE, ROOT, Forge

NPM = Path(__file__).parents[1] / "npm"

# https://docs.github.com/en/actions/reference/workflows-and-actions/events-that-trigger-workflows
_DEFAULT_TYPES = {"pull_request": {"opened", "synchronize", "reopened"}}


@dataclass(frozen=True)
class Parsed:
    """A workflow or an action as GitHub reads it."""

    path: str
    errors: tuple[str, ...]
    on: Mapping[str, Any]


def node() -> str:
    """The Node.js that ``make`` uses."""
    found = shutil.which("node", path=os.pathsep.join([os.environ["PATH"], str(ROOT / ".tools/node/bin")]))
    assert found, "Node.js is missing: run `make tools`"
    return found


def parse(forge: Forge, *repositories: Path) -> list[list[Parsed]]:
    """The workflows and actions of each repository; calls of the forge are checked against its commit."""
    arguments = [f"{FORGE}@{forge.commit}={forge.folder}", *map(str, repositories)]
    done = subprocess.run([node(), NPM / "parse.mjs", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    return [
        [Parsed(file["path"], tuple(file["errors"]), file.get("on", {})) for file in result[str(repository)]]
        for repository in repositories
    ]


def holds(condition: str, event: str, payload: Mapping[str, Any]) -> bool:
    """Whether a job's ``if`` holds for an event, by GitHub's own engine."""
    github = json.dumps({"event_name": event, "event": payload, "ref": payload.get("ref", "")})
    done = subprocess.run(
        [node(), NPM / "evaluate.mjs", condition, github], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return bool(json.loads(done.stdout))


def started(files: Iterable[Parsed], event: str, payload: Mapping[str, Any], changed: Iterable[str] = ()) -> set[str]:
    """The paths of the workflows that an event starts, by GitHub's rules for types, branches, tags and paths."""
    return {file.path for file in files if event in file.on and _starts(event, file.on[event], payload, list(changed))}


def _starts(event: str, filters: Mapping[str, Any], payload: Mapping[str, Any], changed: list[str]) -> bool:
    if event == "schedule":
        return True  # the clock alone decides
    types = set(filters.get("types") or _DEFAULT_TYPES.get(event, {payload.get("action")}))
    if payload.get("action") not in types:
        return False
    ref = str(payload.get("ref", ""))
    if event == "push" and ref.startswith("refs/tags/"):
        # A workflow that filters branches only does not run for tags, whose paths are never looked at.
        return "tags" in filters and _matches(ref.removeprefix("refs/tags/"), filters["tags"])
    branch = ref.removeprefix("refs/heads/")
    if event == "pull_request":
        branch = payload["pull_request"]["base"]["ref"]
    if "branches" in filters and not _matches(branch, filters["branches"]):
        return False
    return "paths" not in filters or any(_matches(path, filters["paths"]) for path in changed)


def _matches(name: str, patterns: list[str]) -> bool:
    """Whether a name is in by a list of patterns, of which the last that fits decides."""
    result = False
    for pattern in patterns:
        if _pattern(pattern.removeprefix("!")).fullmatch(name):
            result = not pattern.startswith("!")
    return result


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    """GitHub's filter patterns; ``*`` stays inside a path's part and ``**`` does not."""
    words = {"**": ".*", "*": "[^/]*"}
    parts = re.split(r"(\*\*|\*)", pattern)
    return re.compile("".join(words.get(part, re.escape(part)) for part in parts))
