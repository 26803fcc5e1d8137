"""CODEOWNERS: each bakery's folder belongs to its operators.

GitHub takes the last matching line, so the generated block is always the last one. It binds where a ruleset requires
reviews of code owners. https://docs.github.com/en/repositories/managing-your-repositorys-settings-and-features/customizing-your-repository/about-code-owners
"""

from __future__ import annotations

import re
from pathlib import Path

from ..bakery import Bakeries
from ..findings import Finding, Place, Refused, Who, rule

STALE = rule(
    "codeowners-stale",
    "GitHub asks the people in CODEOWNERS for their review; they have to be the bakery's operators.",
    who=Who.OPERATOR,
)

BEGIN = "# Bakeries: written by `feedstock bakery check --fix` from each bakery.yaml. This block stays the last."
END = "# End of bakeries."
_BLOCK = re.compile(rf"\n*{re.escape(BEGIN)}\n.*?(?:{re.escape(END)}\n?|\Z)", re.DOTALL)


def file(bakeries: Bakeries) -> Path:
    """The CODEOWNERS file of the forge that holds this database."""
    return bakeries.folder.resolve().parent / ".github" / "CODEOWNERS"


def generated(text: str, bakeries: Bakeries) -> str:
    """``text`` with the block of the bakeries as it should be, at the end; other lines stay."""
    lines = []
    for bakery_id in bakeries.ids():
        try:
            operators = bakeries.read(bakery_id).bakery.operators
        except Refused:
            continue  # a broken bakery.yaml is refused elsewhere, and owns nothing
        owners = " ".join(f"@{operator.github}" for operator in operators)
        lines.append(f"/bakeries/{bakery_id}/ {owners}")
    kept = _BLOCK.sub("\n", text).strip("\n")
    return "\n".join([*([kept, ""] if kept else []), BEGIN, *lines, END, ""])


def read(bakeries: Bakeries) -> str:
    """The text of CODEOWNERS; empty if there is none."""
    path = file(bakeries)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def check(bakeries: Bakeries) -> list[Finding]:
    """A finding if CODEOWNERS does not say what the bakeries say. A database outside a repository has no owners."""
    path = file(bakeries)
    if not (path.parent.parent / ".git").exists() or generated(text := read(bakeries), bakeries) == text:
        return []
    message = "the owners of the bakeries' folders are not their operators"
    return [STALE.at(Place(str(path)), message, "feedstock bakery check --fix")]


def write(bakeries: Bakeries) -> bool:
    """Write CODEOWNERS; whether that changed it."""
    path, text = file(bakeries), read(bakeries)
    wanted = generated(text, bakeries)
    if wanted == text:
        return False
    path.parent.mkdir(exist_ok=True)
    path.write_text(wanted, encoding="utf-8")
    return True
