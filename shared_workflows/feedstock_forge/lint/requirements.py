"""`requirements.txt` beside meta.yaml: what the recipe is installed with, today and when somebody repeats it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..findings import Finding, Place, Severity, rule

FILE = "requirements.txt"
LOCKS = ("requirements.lock", "pylock.toml", "uv.lock")

INVALID = rule("requirement-invalid", "A line that pip cannot read stops every installation of the recipe.")
UNBOUNDED = rule(
    "requirement-unbounded",
    "The newest release of tomorrow may break a recipe that nobody has touched.",
    severity=Severity.WARNING,
)

MAX_LINE = 8000
"""Characters of one requirement with its hashes."""

MAX_LINES = 1000

# The lines that are certainly fine, without importing a parser for them: a name and a version that bounds it above.
_BOUNDED = re.compile(
    r"[A-Za-z0-9][\w.-]*(?:\[[\w.,\s-]+\])?\s*(?:(?:>=|!=|>)\s*[\w.*+!-]+\s*,\s*)*(?:===?|~=|<=?)\s*[\w.*+!-]+\s*",
    re.ASCII,
)
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_COMMIT = re.compile(r"@[0-9a-f]{40}(?:#|$)")


def check(path: Path, text: str, *, locked: bool) -> Iterator[Finding]:
    """The findings of a requirements file; ``locked`` says that a lock file beside it fixes every version."""
    start, pending, looked_at = 0, "", 0
    for number, raw in enumerate(text.splitlines(), start=1):
        start = start if pending else number
        line = f"{pending}{_COMMENT.sub('', raw)}"
        if line.endswith("\\") and len(line) <= MAX_LINE:
            pending = line[:-1]
            continue
        pending, line = "", line.strip()
        if not line or _BOUNDED.fullmatch(line):
            continue
        place = Place(str(path), start, 1)
        if (looked_at := looked_at + 1) > MAX_LINES:
            yield INVALID.at(place, f"there are more than {MAX_LINES} requirements", "name those that recipes import")
            return
        yield from _line(place, line[:MAX_LINE], locked=locked)


def _line(place: Place, line: str, *, locked: bool) -> Iterator[Finding]:
    from packaging.requirements import InvalidRequirement, Requirement

    if line.startswith("-"):
        # Options such as `-r other.txt`, `-c`, `--index-url`: pip's business. An editable install is a moving thing.
        if line.startswith(("-e", "--editable")) and not locked:
            yield UNBOUNDED.at(place, "an editable install is whatever lies there", "name a released version")
        return
    line = re.split(r"\s--hash[=\s]", line)[0].strip()
    if "://" in line and " @ " not in line and not re.match(r"[\w.-]+(?:\[.*\])?@", line):
        if not _COMMIT.search(line) and not locked:
            yield UNBOUNDED.at(place, "this address has no fixed version", "end it in `@` and a full commit SHA")
        return
    try:
        requirement = Requirement(line)
    except (InvalidRequirement, RecursionError) as error:
        reason = str(error).split("\n")[0]
        yield INVALID.at(place, f"pip cannot read this line: {reason}", "write `name==version`")
        return
    if locked:
        return
    if requirement.url is not None:
        if not _COMMIT.search(requirement.url) and not re.search(r"\.(?:whl|tar\.gz|zip)(?:#|$)", requirement.url):
            fix = "end the address in `@` and a full commit SHA"
            yield UNBOUNDED.at(place, f"`{requirement.name}` comes from an address without a fixed version", fix)
    elif not any(clause.operator in ("==", "===", "~=", "<", "<=") for clause in requirement.specifier):
        fix = f"write `{requirement.name}==…` or `{requirement.name}<…`, or lock with `uv pip compile`"
        yield UNBOUNDED.at(place, f"`{requirement.name}` has no upper bound", fix)
