"""``feedstock/meta.yaml``: what a feedstock says about itself, as typed models with the place of every value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from . import licences
from .findings import Finding, Refused, Severity, refuse_errors, rule
from .models import TAG, Model, invalid, shown, validate
from .older_forms import modernise
from .quantities import Cores, Memory
from .stac import OTHER_ROLES, ROLES
from .yaml_file import Document, read_yaml

FOLDER = "feedstock"
FILE = "meta.yaml"
ANSWERS = ".copier-answers.yml"
"""What Copier records beside the folder: the answers, and which template at which commit."""

DUPLICATE_RECIPE = rule("recipe-duplicate-id", "Two recipes of one id would write the same dataset.")
OTHER_ID = rule(
    "meta-id-other-repository", "The id names the flow and the dataset, so it must be the repository's own."
)
ID = rule("feedstock-id-invalid", "The id becomes part of a repository's, a flow's and a dataset's name.")
RECIPE_ID = rule("recipe-id-invalid", "The id becomes part of the dataset's path and of the flow's name.")
ENTRY_POINT = rule("entry-point-invalid", "Without file and name nobody finds the recipe.")
VERSION = rule(
    "version-invalid", "Two numbers say what a new version does: a minor overwrites the dataset, a major keeps it."
)
GITHUB_USER = rule("github-user-invalid", "Maintainers are asked for reviews and get rights by this name.")
ORCID = rule("orcid-invalid", "An iD that fails its checksum credits nobody, or somebody else.")
URL = rule("url-invalid", "A reader should get there by clicking.")
ROLE = rule("provider-role-unknown", "Catalogues know the four roles of STAC and drop every other.")
LICENCE_DEPRECATED = rule(
    "licence-deprecated",
    "SPDX has replaced this id, mostly because it left open whether later versions count.",
    severity=Severity.HINT,
)
LICENCE_UNKNOWN = rule(
    "licence-unknown",
    "Whoever finds the dataset has to know whether they may use it; no program can tell from free text.",
)
LICENCE_NO_LINK = rule(
    "licence-link-missing",
    "`proprietary` says only that SPDX has no name for the terms; without a link nobody can read them.",
    severity=Severity.WARNING,
)

_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_RECIPE_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_ENTRY_POINT = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})", re.ASCII)
_GITHUB = re.compile(r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}", re.ASCII)
_GITHUB_ADDRESS = re.compile(r"(?:@|(?:https?://)?(?:www\.)?github\.com/)([A-Za-z0-9-]+)/?", re.ASCII)
_ORCID = re.compile(r"(\d{4}-){3}\d{3}[\dX]", re.ASCII)
_URL = re.compile(r"(?:https?|ftp|s3|gs)://[^\s<>\"/]+[^\s<>\"]*")
_ORCID_ADDRESS = re.compile(r"(?:https?://)?orcid\.org/((?:\d{4}-){3}\d{3}[\dXx])/?", re.ASCII)


def _feedstock_id(value: str) -> str:
    if value.endswith("-feedstock"):
        raise invalid(f"{shown(value)} ends in -feedstock", f"write `{value.removesuffix('-feedstock')}`", ID)
    if not _ID.fullmatch(value) or len(value) > 80:
        example = slug(value)[:80] or "noaa-oisst"
        raise invalid(
            f"{shown(value)} is not a feedstock id", f"write lower-case words joined by hyphens: `{example}`", ID
        )
    return value


def slug(name: str) -> str:
    """The feedstock id that a repository's name means: ``pangeo-forge/NOAA_OISST-feedstock`` is ``noaa-oisst``."""
    return re.sub(r"[^a-z0-9]+", "-", name.split("/")[-1].lower().removesuffix("-feedstock")).strip("-")


def is_recipe_id(value: str) -> bool:
    """Whether the text can be the id of a recipe."""
    return _RECIPE_ID.fullmatch(value) is not None and ".." not in value


def _recipe_id(value: str) -> str:
    if not is_recipe_id(value):
        example = re.sub(r"[^A-Za-z0-9._-]+|\.\.+", "-", value).strip("._-")[:100] or "avhrr-only"
        raise invalid(
            f"{shown(value)} is not a recipe id",
            f"write at most 100 letters, digits, `.`, `_` and `-`: `{example}`",
            RECIPE_ID,
        )
    return value


MAX_URL = 2000
"""Characters of a URL that every browser and server takes."""


def is_entry_point(value: str) -> bool:
    """Whether the text has the form ``module:name``."""
    return _ENTRY_POINT.fullmatch(value) is not None and not value.partition(":")[0].endswith(".py")


def _entry_point(value: str) -> str:
    if not is_entry_point(value):
        module, _, name = value.replace("/", ".").partition(":")
        example = f"{module.removesuffix('.py')}:{name or 'recipe'}"
        raise invalid(
            f"{shown(value)} is not `module:name`",
            "name a file beside meta.yaml and a name in it: "
            + (f"`{example}`" if is_entry_point(example) else "`recipe:avhrr_only`"),
            ENTRY_POINT,
        )
    return value


def _version(value: str) -> str:
    if not _VERSION.fullmatch(value):
        match = re.match(r"[vV]?(\d{1,6})(?:\.(\d{1,6}))?(?![\w-])", value)
        example = f"{int(match[1])}.{int(match[2] or 0)}" if match else "1.0"
        raise invalid(f"{shown(value)} is not MAJOR.MINOR", f'write two numbers in quotes: `"{example}"`', VERSION)
    return value


def _github(value: str) -> str:
    if not _GITHUB.fullmatch(value):
        match = _GITHUB_ADDRESS.fullmatch(value.strip())
        example = match[1] if match else "rabernat"
        raise invalid(
            f"{shown(value)} is not a GitHub user name",
            f"write the name alone, without @ or URL: `{example}`",
            GITHUB_USER,
        )
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
        match = _ORCID_ADDRESS.fullmatch(value.strip())
        example = match[1].upper() if match else "0000-0001-5999-4917"
        raise invalid(f"{shown(value)} is not an ORCID iD", f"write four groups of four: `{example}`", ORCID)
    digits = value.replace("-", "")
    if orcid_check_digit(digits) != digits[15]:
        raise invalid(
            f"the ORCID iD `{value}` fails its own checksum", "copy it from https://orcid.org, or leave it out", ORCID
        )
    return value


def _one_line(value: str) -> str:
    if not value.strip():
        raise invalid("it is empty", "write a few words")
    return value


def _url(value: str) -> str:
    if len(value) > MAX_URL or not _URL.fullmatch(value):
        bare = len(value) <= MAX_URL and re.fullmatch(r"[\w-]+(?:\.[\w-]+)+(?:/\S*)?", value)
        raise invalid(f"{shown(value)} is not a URL", f"write all of it: `https://{value if bare else '…'}`", URL)
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _role(value: str) -> str:
    if value not in ROLES:
        near = OTHER_ROLES.get(value.lower().strip())
        fix = f"write {near}" if near else f"write one of {', '.join(f'`{role}`' for role in ROLES)}"
        raise invalid(f"{shown(value)} is not a role of a STAC provider", fix, ROLE)
    return value


def _form(pattern: re.Pattern[str], example: str) -> Any:
    """What an editor can know of a value: its pattern, for the schema only, and an example."""
    return Field(examples=[example], json_schema_extra={"pattern": f"^(?:{pattern.pattern})$"})


Text = Annotated[str, AfterValidator(_one_line)]
FeedstockId = Annotated[str, AfterValidator(_feedstock_id), _form(_ID, "noaa-oisst")]
RecipeId = Annotated[str, AfterValidator(_recipe_id), _form(_RECIPE_ID, "avhrr-only")]
EntryPoint = Annotated[str, AfterValidator(_entry_point), _form(_ENTRY_POINT, "recipe:avhrr_only")]
Version = Annotated[str, AfterValidator(_version), _form(_VERSION, "1.0")]
GitHubUser = Annotated[str, AfterValidator(_github), _form(_GITHUB, "rabernat")]
Orcid = Annotated[str, AfterValidator(_orcid), _form(_ORCID, "0000-0001-5999-4917")]
Url = Annotated[str, AfterValidator(_url), _form(_URL, "https://www.ncei.noaa.gov")]
Role = Annotated[str, AfterValidator(_role), Field(json_schema_extra={"enum": list(ROLES)})]
Store = Literal["icechunk", "zarr"]
Event = Literal["release", "merge"]


class Recipe(Model):
    """A recipe: what makes one dataset."""

    id: RecipeId
    object: EntryPoint = Field(description="The recipe, as `module:name` beside meta.yaml.")
    store: Store = "icechunk"

    @model_validator(mode="before")
    @classmethod
    def _one_recipe(cls, data: Any) -> Any:
        if isinstance(data, dict) and "dict_object" in data:
            raise invalid(
                "`dict_object` stands beside other recipes",
                "let it be all: `recipes: {dict_object: …}`, and put the other recipes into that dict",
            )
        if isinstance(data, str):
            raise invalid(f"{shown(data)} is not a recipe", 'write `- {id: …, object: "recipe:…"}`')
        return data


class RecipeDict(Model):
    """Many recipes by one dictionary: its keys are their ids."""

    dict_object: EntryPoint = Field(description="A dict of recipes, as `module:name` beside meta.yaml.")
    store: Store = "icechunk"

    @model_validator(mode="before")
    @classmethod
    def _one_dict(cls, data: Any) -> Any:
        if isinstance(data, dict) and "dict_object" not in data:
            raise invalid(
                "the recipes are a mapping without `dict_object`", 'write a list: `- id: …` and `object: "recipe:…"`'
            )
        return data


def _branch(data: Any) -> str | None:
    match data:
        case list():
            return f"{TAG}list"
        case dict() | RecipeDict():
            return f"{TAG}dict"
        case _:
            return None


Recipes = Annotated[
    Annotated[list[Recipe], Tag(f"{TAG}list")] | Annotated[RecipeDict, Tag(f"{TAG}dict")], Discriminator(_branch)
]
"""A list of recipes, or one dict of them; what is wrong is said of the form that the file uses."""


class Provider(Model):
    """An organisation behind the source data: a STAC provider."""

    name: Text
    description: str | None = None
    roles: list[Role] = Field(default=[])
    url: Url | None = None


class LicenceLink(Model):
    """Where a licence that SPDX does not list can be read."""

    url: Url
    title: str | None = None


class Provenance(Model):
    """Where the data come from and under which terms."""

    providers: list[Provider] = Field(min_length=1)
    license: Text = Field(
        description="An SPDX id (https://spdx.org/licenses), or `proprietary` with `license_link`.",
        examples=["CC-BY-4.0", "CC0-1.0", "ODbL-1.0", "proprietary"],
    )
    license_link: LicenceLink | None = None


class Maintainer(Model):
    """A person who answers for the feedstock."""

    name: Text
    github: GitHubUser
    id: int | None = Field(
        default=None, gt=0, description="GitHub's id of the person: a name that was given up can be taken by another."
    )
    orcid: Orcid | None = None
    email: str | None = None


class Resources(Model):
    """What one run of a recipe asks for."""

    memory: Memory | None = None
    cpu: Cores | None = Field(default=None, description="Cores.")


class LabelRequest(Model):
    """The feedstock's half of the consent: at which bakery, on which label, for which events it wants to run."""

    id: Text = Field(description="The bakery's id.", examples=["ldeo.aws.us-west-2"])
    label: Text = Field(examples=["prod"])
    on: Annotated[list[Event], BeforeValidator(_listed)] = Field(
        default=["release"],
        min_length=1,
        description="The events that make a dataset: a release all of it, a merge what is new.",
    )
    target: Text = "default"
    resources: Resources = Field(default_factory=Resources)


class Meta(Model):
    """All of a meta.yaml."""

    id: FeedstockId
    version: Version
    title: Text
    description: Text
    recipes: Recipes
    provenance: Provenance
    maintainers: list[Maintainer] = Field(min_length=1)
    bakeries: list[LabelRequest] = Field(default=[])

    @model_validator(mode="after")
    def _some_recipe(self) -> Meta:
        if self.recipes == []:
            raise invalid("there is no recipe", 'add one: `- {id: …, object: "recipe:…"}`')
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
    error; warnings and hints come back with the model.
    """
    document = read_yaml(folder / FOLDER / FILE, within=folder)
    meta, findings = check(document, repository or folder.resolve().name)
    if meta is None:
        refuse_errors(findings)
        raise AssertionError("a file without a model has an error")
    return MetaFile(meta, document, tuple(findings))


def check(document: Document, repository: str) -> tuple[Meta | None, list[Finding]]:
    """Everything that meta.yaml alone can tell: the model, unless an error stands in its way, and every finding.

    From here on the document places the parts of the model where they stand in the file.
    """
    data, findings = modernise(document, slug(repository))
    try:
        meta = validate(Meta, document, data)
    except Refused as refused:
        # Half of a file still has a licence to speak of.
        return None, [*refused.findings, *_licence(document, data), *findings]
    findings = [*_licence(document, data), *findings]
    if isinstance(meta.recipes, list):
        findings = [*_duplicates(document, meta.recipes), *findings]
    wrong = any(finding.severity is Severity.ERROR for finding in findings)
    return None if wrong else meta, findings


def _duplicates(document: Document, recipes: list[Recipe]) -> list[Finding]:
    """A finding for each id that stands twice; case does not tell ids apart, since file systems may not."""
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
    return findings


def _licence(document: Document, data: dict[str, Any]) -> list[Finding]:
    provenance = data.get("provenance")
    if not isinstance(provenance, dict) or not isinstance(words := provenance.get("license"), str) or not words.strip():
        return []
    place = document.place(("provenance", "license"))
    terms = licences.understand(words)
    if terms is None:
        return [LICENCE_UNKNOWN.at(place, f"{shown(words)} is not an SPDX licence", licences.suggestion(words))]
    if terms.license == licences.PROPRIETARY and "license_link" not in provenance:
        return [LICENCE_NO_LINK.at(place, "the terms have no link", "add `license_link: {url: https://…}` below")]
    if licences.is_deprecated(terms.license):
        message = f"SPDX has deprecated `{terms.license}`"
        return [LICENCE_DEPRECATED.at(place, message, f"see https://spdx.org/licenses/{terms.license}.html")]
    return []
