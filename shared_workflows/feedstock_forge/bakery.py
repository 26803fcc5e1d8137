"""The bakery database: ``bakeries/<bakery>/bakery.yaml`` and one file a grant, as typed models."""

from __future__ import annotations

import datetime
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from .findings import Finding, Place, Refused, Who, rule
from .meta import Event, GitHubUser, Text, Url
from .models import Model, did_you_mean, invalid, shown, validate
from .quantities import Cores, Duration, Memory, format_memory
from .yaml_file import Document, read_yaml

NO_DATABASE = rule("bakeries-missing", "Without the bakery database no label can be looked up.", who=Who.ORGANISATION)
UNKNOWN = rule("bakery-unknown", "A run needs infrastructure that somebody operates.")
UNKNOWN_LABEL = rule("label-unknown", "A bakery's workers listen only to the labels that it names.")
UNKNOWN_TARGET = rule("target-unknown", "The dataset needs a place that the bakery can write.")
CLOSED = rule("bakery-closed", "A closed bakery runs nothing for anybody.", who=Who.OPERATOR)
LABEL_CLOSED = rule("label-closed", "A closed label runs nothing for anybody.", who=Who.OPERATOR)
BAD_ID = rule("bakery-id-invalid", "The folder's name is the bakery's id.", who=Who.OPERATOR)
MISNAMED = rule(
    "grant-misnamed",
    "A grant is looked up by the feedstock's name; under another name it grants nothing.",
    who=Who.OPERATOR,
)
REQUESTED_TWICE = rule(
    "label-requested-twice", "Two requests for one label would be one deployment with two descriptions."
)
OVER_LIMIT = rule("resources-over-limit", "The label's limits are what its operators pay for.", who=Who.MAINTAINER)

_BAKERY_ID = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*", re.ASCII)
_LABEL = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
# A name of dots alone would be a folder to every path that is built from it.
_REPOSITORY = re.compile(r"[A-Za-z0-9](?:-?[A-Za-z0-9])*/(?!\.{1,2}\Z)[A-Za-z0-9._-]+", re.ASCII)

_CLASS = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)


def is_bakery_id(name: str) -> bool:
    """Whether the name of a folder can be a bakery's id."""
    return _BAKERY_ID.fullmatch(name) is not None


def _label(value: str) -> str:
    if not _LABEL.fullmatch(value):
        raise invalid(f"{shown(value)} is not a label", "write lower-case letters and digits: `prod`")
    return value


def _repository(value: str) -> str:
    if not _REPOSITORY.fullmatch(value):
        raise invalid(f"{shown(value)} is not a repository", "write `owner/name`")
    return value


def _date(value: Any) -> Any:
    if not isinstance(value, str):
        raise invalid(f"{shown(value)} is not a date", "write `2027-11-01`")
    try:
        return datetime.date.fromisoformat(value)
    except ValueError:
        raise invalid(f"{shown(value)} is not a date", "write `2027-11-01`") from None


def _image(value: str) -> str:
    try:
        value.format(feedstock="feedstock", version="v1")
    except (KeyError, IndexError, ValueError, AttributeError):
        raise invalid(
            f"{shown(value)} holds other words in braces than {{feedstock}} and {{version}}",
            "write `ghcr.io/owner/{feedstock}:{version}`",
        ) from None
    return value


def _class_path(value: str) -> str:
    if not _CLASS.fullmatch(value):
        raise invalid(f"{shown(value)} is not a class", "write `module.Class`, such as `distributed.LocalCluster`")
    return value


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("tcp", "tls", "ws", "wss", "ucx") or not parts.hostname or parts.username:
        raise invalid(f"{shown(value)} is not a scheduler's address", "write `tls://scheduler.example.org:8786`")
    return value


Address = Annotated[str, AfterValidator(_address)]
ClassPath = Annotated[str, AfterValidator(_class_path)]
Image = Annotated[Text, AfterValidator(_image)]
Label = Annotated[str, AfterValidator(_label)]
Repository = Annotated[str, AfterValidator(_repository)]
Date = Annotated[datetime.date, BeforeValidator(_date)]


class Operator(Model):
    """A person who may say yes or no for the bakery."""

    github: GitHubUser
    id: int | None = Field(
        default=None, gt=0, description="GitHub's id of the person: a name that was given up can be taken by another."
    )


class WorkPool(Model):
    """The Prefect work pool whose workers are the bakery."""

    name: Text
    type: Text = Field(description="A Prefect worker type.", examples=["process", "kubernetes"])
    image: Image | None = Field(
        default=None,
        description="The container image of a run; {feedstock} and {version} stand for its own.",
        examples=["ghcr.io/pangeo-forge/{feedstock}:{version}"],
    )

    @model_validator(mode="after")
    def _has_a_use_for_its_image(self) -> WorkPool:
        if self.image and self.type == "process":
            fix = "remove it, or name the type of a pool that starts containers"
            raise invalid("work_pool: a process pool starts no containers, so it has no `image`", fix)
        return self


class Limits(Model):
    """The most that one run may take."""

    memory: Memory | None = None
    cpu: Cores | None = None
    runtime: Duration | None = None


class LabelSpec(Model):
    """A label: who may use it, and how much of it."""

    grants: Literal["open", "on-request", "closed"] = "on-request"
    prune: Literal["required", "allowed"] = "allowed"
    limits: Limits = Field(default_factory=Limits)


class Target(Model):
    """A place where the bakery may write datasets."""

    url: Text = Field(description="A URL that fsspec and Icechunk understand; `~` and `$VARIABLE` only with file://.")
    region: str | None = None
    public_url: Url | None = None


class Adapt(Model):
    """How many workers a cluster has, between what it needs and what it may take."""

    minimum: int = Field(ge=0)
    maximum: int = Field(ge=1)

    @model_validator(mode="after")
    def _is_a_range(self) -> Adapt:
        if self.minimum > self.maximum:
            raise invalid(f"the minimum {self.minimum} is above the maximum {self.maximum}", "exchange them")
        return self


class Dask(Model):
    """A Dask cluster: a class that starts one for each run, or the address of one that runs."""

    cluster: ClassPath | None = Field(
        default=None, description="A class that starts one for each run.", examples=["distributed.LocalCluster"]
    )
    options: dict[str, Any] = Field(default={}, description="The arguments of that class.")
    adapt: Adapt | None = None
    requires: list[Text] = Field(default=[], description="What to install for it. [default: the class's library]")
    address: Address | None = Field(default=None, examples=["tls://scheduler.example.org:8786"])

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Dask:
        if (self.cluster is None) == (self.address is None):
            raise invalid("dask needs a `cluster` or an `address`", "name one of them, not both")
        if self.address and (self.options or self.adapt or self.requires):
            raise invalid(
                "a cluster that runs already takes no `options`, `adapt` and `requires`", "remove them, or `address`"
            )
        return self


class Beam(Model):
    """An Apache Beam runner, for recipes that are pipelines of Beam's."""

    runner: Text = Field(examples=["FlinkRunner", "DataflowRunner", "SparkRunner"])
    options: dict[str, str | bool | int | float | list[str]] = Field(
        default={}, description="Beam's pipeline options, with underscores."
    )


class Engine(Model):
    """What recipes compute with; threads in one process where nothing is named."""

    dask: Dask | None = None
    beam: Beam | None = None


class Bakery(Model):
    """All of a bakery.yaml."""

    description: Text
    operators: list[Operator] = Field(min_length=1)
    work_pool: WorkPool
    labels: dict[Label, LabelSpec] = Field(min_length=1)
    targets: dict[str, Target] = Field(min_length=1)
    engine: Engine = Field(default_factory=Engine)
    closed: bool = Field(default=False, description="A closed bakery runs nothing.")


class Grant(Model):
    """A bakery's consent that one feedstock may use one of its labels."""

    repository: Repository
    repository_id: int = Field(gt=0, description="GitHub's id of the repository: names can be re-used, ids cannot.")
    label: Label
    recipes: list[Text] = Field(default=["*"], min_length=1)
    events: list[Event] = Field(default=["release"], min_length=1)
    limits: Limits = Field(default_factory=Limits)
    expires: Date | None = None
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class BakeryFile:
    """A bakery as read, with the document for places."""

    id: str
    bakery: Bakery
    document: Document


@dataclass(frozen=True, slots=True)
class GrantFile:
    """A grant as read, with the document for places."""

    grant: Grant
    document: Document


@dataclass(frozen=True, slots=True)
class Bakeries:
    """The bakery database in a folder. Files are read when they are asked for, so a broken one harms only its own."""

    folder: Path

    @classmethod
    def at(cls, folder: Path) -> Bakeries:
        """The database in ``folder``. Raises :class:`Refused` if it is not there."""
        if not folder.is_dir():
            raise Refused(
                NO_DATABASE.at(None, f"there is no bakery database at {folder}", "pass --bakeries FOLDER of a forge")
            )
        return cls(folder)

    def ids(self) -> list[str]:
        """The ids of all bakeries, sorted."""
        return sorted(path.parent.name for path in self.folder.glob("*/bakery.yaml"))

    def read(self, bakery_id: str) -> BakeryFile:
        """Read one bakery. Raises :class:`Refused` if there is none of this id or its file is wrong."""
        # Compared with the names that exist, never joined to the path unchecked: `..` and other cases stay outside.
        if not is_bakery_id(bakery_id) or bakery_id not in self.ids():
            raise Refused(UNKNOWN.at(None, f"there is no bakery `{bakery_id}`", did_you_mean(bakery_id, self.ids())))
        document = read_yaml(self.folder / bakery_id / "bakery.yaml", within=self.folder)
        return BakeryFile(bakery_id, validate(Bakery, document), document)

    def grants(self, bakery_id: str) -> list[Path]:
        """The grant files of a bakery, sorted."""
        return sorted((self.folder / bakery_id / "grants").glob("*.yaml"))

    def grants_for(self, bakery_id: str, feedstock: str) -> list[GrantFile]:
        """The grants of a bakery to one feedstock: ``<feedstock>.yaml`` and ``<feedstock>.<label>.yaml``.

        Raises :class:`Refused` if a file of that name is wrong.
        """
        found = []
        for path in self.grants(bakery_id):
            stem, _, _ = path.name.removesuffix(".yaml").partition(".")
            if stem == feedstock:
                found.append(self.read_grant(path))
        return found

    def read_grant(self, path: Path) -> GrantFile:
        """Read a grant's file. Raises :class:`Refused` if it is wrong or leads out of the database."""
        document = read_yaml(path, within=self.folder)
        return GrantFile(validate(Grant, document), document)


def bundled() -> Path:
    """The bakery database that came with the forge: its checkout's, or the copy inside the installed package."""
    package = Path(__file__).parent
    checkout = package.parents[1] / "bakeries"
    return checkout if checkout.is_dir() else package / "bakeries"


def default_folder() -> Path:
    """Where commands look when not told: ``FEEDSTOCK_BAKERIES`` if it is set, else the bundled database."""
    named = os.environ.get("FEEDSTOCK_BAKERIES")
    return Path(named) if named else bundled()


def unknown_label(bakery: BakeryFile, label: str, finding_place: Place | None = None) -> Finding:
    """The finding for a label that the bakery does not name."""
    return UNKNOWN_LABEL.at(
        finding_place, f"{bakery.id} has no label `{label}`", did_you_mean(label, list(bakery.bakery.labels))
    )


def over_limit(memory: int | None, cpu: float | None, limits: Limits, place: Place | None) -> Finding | None:
    """The finding for resources (bytes, cores) beyond the limits; None if they are within."""
    if limits.memory is not None and memory is not None and memory > limits.memory:
        limit = format_memory(limits.memory)
        message = f"it asks for {format_memory(memory)} of memory; the limit is {limit}"
        return OVER_LIMIT.at(place, message, f"write `memory: {limit}` or less")
    if limits.cpu is not None and cpu is not None and cpu > limits.cpu:
        message = f"it asks for {cpu:g} cores; the limit is {limits.cpu:g}"
        return OVER_LIMIT.at(place, message, f"write `cpu: {limits.cpu:g}` or less")
    return None
