"""What came of trying a pull request's recipes: the artifact that the job without a secret hands to the one with.

Recipe code ran where this file was written, so whoever reads it takes it as the word of a stranger: exactly this shape
and size, shown as what the trial said, and nothing decided by it that a person does not look at.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from ..findings import Finding, Place, Refused, Rule, Severity, Who, rule
from ..meta import RecipeId
from ..models import Model
from ..yaml_file import read_text

UNREADABLE = rule(
    "trial-unreadable",
    "What a stranger's job hands over is taken only in the shape that it must have.",
    who=Who.ORGANISATION,
)
OTHER_COMMIT = rule("trial-other-commit", "A trial of another commit says nothing about this one.")

MAX_TRIAL = 1 << 20  # bytes
MAX_FOLDERS = 20
MAX_RECIPES = 5
"""How many recipes of a folder are tried: the first few tell what the rest would."""
MAX_REPR = 12_000

Words = Annotated[str, StringConstraints(max_length=2000)]
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
Name = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
MOST = 1 << 63
"""More than there can be of anything: a number without an end can be neither divided nor shown."""
Amount = Annotated[int, Field(ge=0, le=MOST)]


class Said(Model):
    """A finding, as text. What can be found depends on what runs: who reads it may not know the rule."""

    id: Name
    severity: Literal["error", "warning", "hint"] = "error"
    who: Words = ""
    message: Words
    fix: Words
    file: Words = ""
    line: int | None = None
    column: int | None = None

    @classmethod
    def of(cls, finding: Finding) -> Said:
        """A finding's text."""
        place = finding.place or Place("")
        return cls(
            id=finding.id,
            severity=finding.severity.value,
            who=finding.who.value,
            message=finding.message,
            fix=finding.fix,
            file=place.file,
            line=place.line,
            column=place.column,
        )

    def finding(self) -> Finding:
        """The finding again."""
        place = Place(self.file, self.line, self.column) if self.file else None
        who = next((who for who in Who if who.value == self.who), Who.CONTRIBUTOR)
        return Rule(self.id, Severity(self.severity), who, "").at(place, self.message, self.fix)


class Described(Model):
    """What a dataset looks like, as far as it could be opened."""

    inputs: Amount | None = Field(default=None, ge=1)
    of: Amount | None = Field(default=None, ge=1)
    """How many inputs a full run takes, where the recipe says so."""
    repr: str = Field(default="", max_length=MAX_REPR)


class Tried(Described):
    """One recipe's pruned run."""

    recipe: RecipeId
    outcome: Literal["completed", "failed", "stopped"]
    """``stopped``: it met a limit of the trial."""
    findings: list[Said] = Field(default=[], max_length=20)
    seconds: float = Field(default=0, ge=0, le=MOST)
    memory: Amount = 0
    """Bytes, at the most."""
    stored: Amount = 0
    """Bytes of the dataset as it is stored."""

    @property
    def full(self) -> float | None:
        """How many times as much a full run takes, as far as its inputs tell."""
        return self.of / self.inputs if self.inputs and self.of and self.of >= self.inputs else None


class FolderTrial(Model):
    """What came of one recipe folder."""

    folder: Name
    findings: list[Said] = Field(default=[], max_length=100)
    """Why its recipes could not be planned."""
    recipes: Amount = 0
    """How many recipes there are; not all are tried."""
    tried: list[Tried] = Field(default=[], max_length=MAX_RECIPES)

    @property
    def said(self) -> list[Said]:
        """Everything that is wrong with it."""
        return [*self.findings, *(said for item in self.tried for said in item.findings)]

    @property
    def passed(self) -> bool:
        """Whether every recipe that was tried completed."""
        return not self.findings and bool(self.tried) and all(item.outcome == "completed" for item in self.tried)


class Trial(Model):
    """All of a trial.json."""

    format: Literal[1] = 1
    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
    """The pull request's own commit, not GitHub's merge of it."""
    folders: list[FolderTrial] = Field(max_length=MAX_FOLDERS)

    def of(self, folder: str) -> FolderTrial | None:
        """What came of a folder; ``None`` if it was not tried."""
        return next((item for item in self.folders if item.folder == folder), None)


def write(trial: Trial, path: Path) -> None:
    """Write a trial whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(trial.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def read(path: Path, commit: str) -> Trial:
    """Read the trial of a commit as the word of a stranger. Raises :class:`Refused` if it is not exactly one."""
    try:
        trial = Trial.model_validate_json(json.dumps(json.loads(read_text(path, max_bytes=MAX_TRIAL))))
    except (ValueError, RecursionError) as error:
        what = str(error)
        if isinstance(error, ValidationError):
            detail = error.errors(include_url=False)[0]
            what = f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"
        message = f"not what a trial says: {what}"
        raise Refused(UNREADABLE.at(Place(str(path)), message, "run the check of the pull request again")) from None
    if trial.commit != commit:
        message = f"the trial is of {trial.commit[:12]}, the pull request stands at {commit[:12]}"
        raise Refused(OTHER_COMMIT.at(Place(str(path)), message, "wait for the check of the newest commit"))
    return trial
