"""``feedstock/meta.yaml``: what a feedstock says about itself, as typed models with the place of every value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from .findings import Finding, Severity, Who, rule
from .models import Model, invalid, validate
from .quantities import Memory
from .yaml_file import Document, read_yaml

FOLDER = "feedstock"
FILE = "meta.yaml"

OLD_FORM = rule(
    "meta-old-form",
    "The community's older files are read, but their form is no longer documented and tools move on.",
    severity=Severity.HINT,
    who=Who.MAINTAINER,
)
DUPLICATE_RECIPE = rule("recipe-duplicate-id", "Two recipes of one id would write the same dataset.")

_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_RECIPE_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_ENTRY_POINT = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})", re.ASCII)
_GITHUB = re.compile(r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}", re.ASCII)
_ORCID = re.compile(r"(\d{4}-){3}\d{3}[\dX]", re.ASCII)


def _feedstock_id(value: str) -> str:
    if not _ID.fullmatch(value) or len(value) > 80:
        raise invalid(f"`{value}` is not a feedstock id", "write lower-case words joined by hyphens: `noaa-oisst`")
    if value.endswith("-feedstock"):
        raise invalid(f"`{value}` ends in -feedstock", f"write `{value.removesuffix('-feedstock')}`")
    return value


def _recipe_id(value: str) -> str:
    if not _RECIPE_ID.fullmatch(value) or ".." in value:
        raise invalid(f"`{value}` is not a recipe id", "write letters, digits, `.`, `_` and `-`: `avhrr-only`")
    return value


def _entry_point(value: str) -> str:
    if not _ENTRY_POINT.fullmatch(value):
        raise invalid(
            f"`{value}` is not `module:name`", f"name a file beside meta.yaml and a name in it: `recipe:{_ID_HINT}`"
        )
    return value


_ID_HINT = "avhrr_only"


def _version(value: str) -> str:
    if not _VERSION.fullmatch(value):
        raise invalid(f"`{value}` is not MAJOR.MINOR", 'write two numbers in quotes: `"1.0"`')
    return value


def _github(value: str) -> str:
    if not _GITHUB.fullmatch(value):
        raise invalid(f"`{value}` is not a GitHub user name", "write the name alone, without @ or URL: `rabernat`")
    return value


def orcid_check_digit(digits: str) -> str:
    """The last character of an ORCID iD: ISO 7064 MOD 11-2 over the first fifteen digits.

    https://support.orcid.org/hc/en-us/articles/360006897674
    """
    total = 0
    for digit in digits[:15]:
        total = (total + int(digit)) * 2
    result = (12 - total % 11) % 11
    return "X" if result == 10 else str(result)


def _orcid(value: str) -> str:
    if not _ORCID.fullmatch(value):
        raise invalid(f"`{value}` is not an ORCID iD", "write four groups of four: `0000-0001-5999-4917`")
    digits = value.replace("-", "")
    if orcid_check_digit(digits) != digits[15]:
        raise invalid(f"the ORCID iD `{value}` fails its own checksum", "copy it from https://orcid.org again")
    return value


def _one_line(value: str) -> str:
    if not value.strip():
        raise invalid("it is empty", "write a few words")
    return value


def _url(value: str) -> str:
    if not re.fullmatch(r"(?:https?|ftp|s3|gs)://[^\s<>\"]+", value):
        raise invalid(f"`{value}` is not a URL", "write all of it: `https://…`")
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Text = Annotated[str, AfterValidator(_one_line)]
FeedstockId = Annotated[str, AfterValidator(_feedstock_id), Field(examples=["noaa-oisst"])]
RecipeId = Annotated[str, AfterValidator(_recipe_id), Field(examples=["avhrr-only"])]
EntryPoint = Annotated[str, AfterValidator(_entry_point), Field(examples=["recipe:avhrr_only"])]
Version = Annotated[str, AfterValidator(_version), Field(examples=["1.0"])]
GitHubUser = Annotated[str, AfterValidator(_github), Field(examples=["rabernat"])]
Orcid = Annotated[str, AfterValidator(_orcid), Field(examples=["0000-0001-5999-4917"])]
Url = Annotated[str, AfterValidator(_url), Field(examples=["https://www.ncei.noaa.gov"])]
Store = Literal["icechunk", "zarr"]
Role = Literal["licensor", "producer", "processor", "host"]
"""The roles of a STAC provider: https://github.com/radiantearth/stac-spec/blob/master/commons/common-metadata.md"""
Event = Literal["release", "merge"]


class Recipe(Model):
    """A recipe: what makes one dataset."""

    id: RecipeId
    object: EntryPoint = Field(description="The recipe, as `module:name` beside meta.yaml.")
    store: Store = "icechunk"


class RecipeDict(Model):
    """Many recipes by one dictionary: its keys are their ids."""

    dict_object: EntryPoint = Field(description="A dict of recipes, as `module:name` beside meta.yaml.")
    store: Store = "icechunk"


class Provider(Model):
    """An organisation behind the source data: a STAC provider."""

    name: Text
    description: str | None = None
    roles: list[Role] = Field(default_factory=list)
    url: Url | None = None


class LicenceLink(Model):
    """Where a licence that SPDX does not list can be read."""

    url: Url
    title: str | None = None


class Provenance(Model):
    """Where the data come from and under which terms."""

    providers: list[Provider] = Field(min_length=1)
    license: Text = Field(description="An SPDX id, or `proprietary` with `license_link`.", examples=["CC-BY-4.0"])
    license_link: LicenceLink | None = None


class Maintainer(Model):
    """A person who answers for the feedstock."""

    name: Text
    github: GitHubUser
    orcid: Orcid | None = None
    email: str | None = None


class Resources(Model):
    """What one run of a recipe asks for."""

    memory: Memory | None = None
    cpu: float | None = Field(default=None, gt=0, description="Cores.")


class LabelRequest(Model):
    """The feedstock's half of the consent: at which bakery, on which label, for which events it wants to run."""

    id: Text = Field(description="The bakery's id.", examples=["ldeo.aws.us-west-2"])
    label: Text = Field(examples=["prod"])
    on: Annotated[list[Event], BeforeValidator(_listed)] = Field(default=["release"], min_length=1)
    target: Text = "default"
    resources: Resources = Resources()


class Meta(Model):
    """All of a meta.yaml."""

    id: FeedstockId
    version: Version
    title: Text
    description: Text
    recipes: list[Recipe] | RecipeDict
    provenance: Provenance
    maintainers: list[Maintainer] = Field(min_length=1)
    bakeries: list[LabelRequest] = Field(default_factory=list)

    @model_validator(mode="after")
    def _some_recipe(self) -> Meta:
        if self.recipes == []:
            raise invalid("there is no recipe", "add one: `- {id: …, object: \"recipe:…\"}`")
        return self

    @property
    def major(self) -> int:
        """The major version: datasets of different majors live side by side."""
        return int(self.version.split(".")[0])


@dataclass(frozen=True, slots=True)
class MetaFile:
    """A meta.yaml as read: its model, its document for places, and hints about older forms."""

    meta: Meta
    document: Document
    hints: tuple[Finding, ...] = ()


def read(folder: Path, *, repository: str | None = None) -> MetaFile:
    """Read ``feedstock/meta.yaml`` of the feedstock in ``folder``.

    ``repository`` (``owner/name``) stands in for an ``id`` that older files lack. Raises :class:`Refused` with every
    error; hints come back with the model.
    """
    document = read_yaml(folder / FOLDER / FILE, within=folder)
    data, hints = modernise(document, repository or folder.resolve().name)
    meta = validate(Meta, document, data)
    if isinstance(meta.recipes, list):
        refuse_duplicates(document, meta.recipes)
    return MetaFile(meta, document, tuple(hints))


def refuse_duplicates(document: Document, recipes: list[Recipe]) -> None:
    """Raise :class:`Refused` where a recipe id stands twice; case does not tell ids apart, since file systems may not."""
    from .findings import Refused

    first: dict[str, int] = {}
    findings = []
    for index, recipe in enumerate(recipes):
        known = first.setdefault(recipe.id.lower(), index)
        if known != index:
            line = document.place(("recipes", known, "id")).line
            findings.append(
                DUPLICATE_RECIPE.at(
                    document.place(("recipes", index, "id")),
                    f"the recipe id `{recipe.id}` is taken by the recipe on line {line}",
                    "give each recipe an id of its own",
                )
            )
    if findings:
        raise Refused(*findings)


def modernise(document: Document, repository: str) -> tuple[dict[str, Any], list[Finding]]:
    """The data of a meta.yaml in the present form, and a hint for each older form found."""
    data = dict(document.data)
    hints: list[Finding] = []

    def hint(key: str, message: str, fix: str) -> None:
        hints.append(OLD_FORM.at(document.place((key,), key=True), message, fix))

    for key in ("pangeo_forge_version", "pangeo_notebook_version"):
        if data.pop(key, None) is not None:
            hint(key, f"`{key}` is no longer used", "remove it; versions belong in feedstock/requirements.txt")
    if "bakery" in data and "bakeries" not in data:
        bakery = data.pop("bakery")
        if isinstance(bakery, dict):
            data["bakeries"] = [{"label": "prod", **bakery}]
        hint("bakery", "`bakery` holds one bakery", "write a list: `bakeries: [{id: …, label: …, on: [release]}]`")
    recipes = data.get("recipes")
    if isinstance(recipes, list) and len(recipes) == 1 and isinstance(recipes[0], dict) and "dict_object" in recipes[0]:
        data["recipes"] = recipes[0]
        hint("recipes", "`recipes` is a list that holds one `dict_object`", "write `recipes: {dict_object: …}`")
    if "id" not in data:
        data["id"] = re.sub(r"[^a-z0-9]+", "-", repository.split("/")[-1].lower().removesuffix("-feedstock")).strip("-")
        hint("id", "`id` is missing; the repository's name stands in", f"add `id: {data['id']}`")
    if "version" not in data:
        data["version"] = "1.0"
        hint("version", "`version` is missing", 'add `version: "1.0"`')
    elif isinstance(data["version"], float | int) and (raw := document.raw.get(("version",))):
        data["version"] = raw
        hint("version", f"`version: {raw}` is a number to YAML, which would read 1.10 as 1.1", f'quote it: `"{raw}"`')
    return data, hints
