"""The answers that a person would give to the template's questions, read from a recipe's meta.yaml."""

from __future__ import annotations

import re
from pathlib import Path

from ..findings import Finding, Refused, rule
from ..meta import Maintainer, Meta, Recipe, Store
from ..yaml_file import Document, Loc, read_text

REFUSED = rule("staged-answer-refused", "The feedstock is made from meta.yaml, and the template asks for this value.")

BAKERY, LABEL = "local", "dev"
"""What the template answers by itself where a recipe asks for no bakery."""

CHUNK_SIZE = "16 MiB"

_KINDS = {
    "beam": re.compile(r"^\s*(?:from|import) (?:apache_beam|pangeo_forge_recipes)\b", re.MULTILINE),
    "virtual": re.compile(r"^\s*from feedstock_forge\.bake import .*\bbake_virtual\b", re.MULTILINE),
    "xarray": re.compile(r"^\s*from feedstock_forge\.bake import .*\bbake\b", re.MULTILINE),
}
_CHUNK_SIZE = re.compile(r"^CHUNK_SIZE = [\"'](\d+ [KM]iB)[\"']", re.MULTILINE)
_PLACES: dict[str, Loc] = {
    "id": ("id",),
    "title": ("title",),
    "description": ("description",),
    "provider_name": ("provenance", "providers", 0, "name"),
    "provider_url": ("provenance", "providers", 0, "url"),
    "license": ("provenance", "license"),
    "license_url": ("provenance", "license_link", "url"),
    "maintainers": ("maintainers",),
    "store": ("recipes", 0, "store"),
    "bakery": ("bakeries", 0, "id"),
    "label": ("bakeries", 0, "label"),
}
_REFUSAL = re.compile(r"question '(\w+)': (.*)", re.DOTALL)


def derive(meta: Meta, folder: Path) -> dict[str, str]:
    """The answers for a recipe; ``folder`` holds its code, which is read and never imported."""
    provider = meta.provenance.providers[0]
    link = meta.provenance.license_link
    wish = meta.bakeries[0] if meta.bakeries else None
    source = _source(meta, folder)
    answers = {
        "id": meta.id,
        "title": _line(meta.title),
        "description": _line(meta.description),
        "provider_name": _line(provider.name),
        "provider_url": provider.url or "",
        "license": meta.provenance.license,
        "maintainers": "; ".join(map(_person, meta.maintainers)),
        "kind": _kind(source),
        "store": _store(meta),
        "bakery": wish.id if wish else BAKERY,
        "label": wish.label if wish else LABEL,
    }
    # Copier asks for these then only, and records no answer that it did not ask for.
    if answers["license"] == "proprietary":
        answers["license_url"] = link.url if link else ""
    if answers["kind"] == "xarray":
        answers["chunk_size"] = _chunk_size(source)
    return answers


def refusal(error: ValueError, document: Document) -> Finding:
    """What a validator of the template has against an answer, said of the place in meta.yaml that it came from."""
    match = _REFUSAL.search(str(error))
    loc = _PLACES.get(match[1], ()) if match else ()
    words = " ".join((match[2] if match else str(error)).split())
    key = ".".join(str(part) for part in loc) or "an answer"
    return REFUSED.at(document.place(loc), f"the template does not take `{key}`", words)


def from_skeleton(meta: Meta) -> bool:
    """Whether the recipe has the name that the template gives it, which the template's own test imports."""
    recipes = meta.recipes
    return isinstance(recipes, list) and [recipe.object for recipe in recipes] == [
        f"recipe:{meta.id.replace('-', '_')}"
    ]


def _line(words: str) -> str:
    """One printable line, as a person would type it."""
    return " ".join("".join(letter for letter in " ".join(words.split()) if letter.isprintable()).split())


def _person(person: Maintainer) -> str:
    name = _line(re.sub(r"[;@]", " ", person.name)) or person.github
    return f"{name} @{person.github}{f' {person.orcid}' if person.orcid else ''}"


def _store(meta: Meta) -> Store:
    recipes = meta.recipes
    return recipes[0].store if isinstance(recipes, list) else recipes.store


def _source(meta: Meta, folder: Path) -> str:
    """The code of the first recipe's module; nothing where it is a package or cannot be read."""
    recipes = meta.recipes
    first = recipes[0] if isinstance(recipes, list) else recipes
    entry_point = first.object if isinstance(first, Recipe) else first.dict_object
    try:
        return read_text(folder / f"{entry_point.partition(':')[0].replace('.', '/')}.py", within=folder)
    except Refused:
        return ""


def _kind(source: str) -> str:
    """The skeleton that a recipe has grown from, by what its code imports."""
    for kind, imports in _KINDS.items():
        if imports.search(source):
            return kind
    return "flow"


def _chunk_size(source: str) -> str:
    match = _CHUNK_SIZE.search(source)
    return match[1] if match else CHUNK_SIZE
