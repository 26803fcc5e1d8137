"""The meta.yaml files of the community's first years, read in the form of today."""

from __future__ import annotations

import copy
from typing import Any, Protocol

from . import licences
from .findings import Finding, Severity, Who, rule
from .models import shown
from .quantities import format_memory
from .stac import ROLES
from .yaml_file import Document, Loc

OLD_FORM = rule(
    "meta-old-form",
    "The community's older files are read, but their form is no longer documented and tools move on.",
    severity=Severity.HINT,
    who=Who.MAINTAINER,
)
LICENCE_SPELLING = rule(
    "licence-spelling",
    "Catalogues compare licences letter by letter; the SPDX id is the one spelling that all of them know.",
    severity=Severity.HINT,
)


def modernise(document: Document, feedstock: str) -> tuple[dict[str, Any], list[Finding]]:
    """The data of a meta.yaml in the present form, and a hint for each older form found.

    ``feedstock`` is the id that stands in where there is none. The document learns where the parts that moved really
    stand.
    """
    data: dict[str, Any] = copy.deepcopy(document.data)
    hints: list[Finding] = []

    def hint(loc: Loc, message: str, fix: str, *, key: bool = True) -> None:
        hints.append(OLD_FORM.at(document.place(loc, key=key), message, fix))

    for key in ("pangeo_forge_version", "pangeo_notebook_version"):
        if key in data:
            del data[key]
            hint((key,), f"`{key}` is no longer used", "remove it; versions belong in feedstock/requirements.txt")
    if isinstance(bakery := data.get("bakery"), dict | str) and "bakeries" not in data:
        data["bakeries"] = [_modern_bakery(bakery, hint)]
        del data["bakery"]
        document.moved[("bakeries",)] = ("bakery",)
        document.moved[("bakeries", 0)] = ("bakery",)
        hint(("bakery",), "`bakery` holds one bakery", "write a list: `bakeries: [{id: …, label: …, on: [release]}]`")
    recipes = data.get("recipes")
    if isinstance(recipes, list) and len(recipes) == 1 and isinstance(recipes[0], dict) and "dict_object" in recipes[0]:
        data["recipes"] = recipes[0]
        document.moved[("recipes",)] = ("recipes", 0)
        hint(("recipes",), "`recipes` is a list that holds one `dict_object`", "write `recipes: {dict_object: …}`")
    _modern_provenance(document, data.get("provenance"), hint, hints)
    maintainers = data.get("maintainers")
    for index, maintainer in enumerate(maintainers if isinstance(maintainers, list) else ()):
        if isinstance(maintainer, dict) and maintainer.get("orcid") in ("", None) and "orcid" in maintainer:
            del maintainer["orcid"]
            hint(("maintainers", index, "orcid"), "`orcid` is empty", "remove it, or add yours from https://orcid.org")
    if "id" not in data and feedstock:
        data["id"] = feedstock
        hint(("id",), "`id` is missing; the repository's name stands in", f"add `id: {feedstock}`")
    if "version" not in data:
        data["version"] = "1.0"
        hint(("version",), "`version` is missing", 'add `version: "1.0"`')
    elif isinstance(data["version"], float | int) and (raw := document.raw.get(("version",))):
        data["version"] = raw
        message = f"`version: {raw}` is a number to YAML, which would read 1.10 as 1.1"
        hint(("version",), message, f'quote it: `"{raw}"`', key=False)
    return data, hints


class _Hint(Protocol):
    def __call__(self, loc: Loc, message: str, fix: str, *, key: bool = True) -> None: ...


def _modern_bakery(bakery: dict[str, Any] | str, hint: _Hint) -> dict[str, Any]:
    """The first form of a request: always for releases, and with the resources of an AWS task.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html: memory is a number of MiB,
    cpu of 1/1024 of a core, 256 at least.
    """
    if isinstance(bakery, str):
        return {"id": bakery, "label": "prod"}
    request = {"label": "prod", **bakery}
    if isinstance(resources := request.get("resources"), dict):
        memory, cpu = resources.get("memory"), resources.get("cpu")
        if type(memory) is int and memory > 0:
            resources["memory"] = modern_memory(memory)
            loc: Loc = ("bakery", "resources", "memory")
            hint(loc, f"`{memory}` has no unit; it used to mean MiB", f"write `{resources['memory']}`", key=False)
        if type(cpu) is int and cpu >= AWS_CPU_UNITS // 4:
            resources["cpu"] = cpu / AWS_CPU_UNITS
            loc = ("bakery", "resources", "cpu")
            hint(loc, f"`{cpu}` used to mean 1/1024 of a core", f"write `{resources['cpu']:g}`", key=False)
    return request


AWS_CPU_UNITS = 1024


def modern_memory(mebibytes: int) -> str:
    """MiB with their unit: ``4 GiB`` for 4096."""
    return format_memory(mebibytes * 2**20)


def _modern_provenance(document: Document, provenance: Any, hint: _Hint, hints: list[Finding]) -> None:
    if not isinstance(provenance, dict):
        return
    for index, provider in enumerate(provenance["providers"] if isinstance(provenance.get("providers"), list) else ()):
        roles = provider.get("roles") if isinstance(provider, dict) else None
        for number, role in enumerate(roles if isinstance(roles, list) else ()):
            if isinstance(role, str) and role not in ROLES and (known := role.strip().lower()) in ROLES:
                provider["roles"][number] = known
                where: Loc = ("provenance", "providers", index, "roles", number)
                hint(where, f"{shown(role)} is a role in another spelling", f"write `{known}`", key=False)
    link = provenance.get("license_link")
    if "license_link" in provenance and (not link or (isinstance(link, dict) and not any(link.values()))):
        del provenance["license_link"]
        hint(("provenance", "license_link"), "`license_link` is empty", "add the URL of the terms, or remove it")
    if isinstance(words := provenance.get("license"), str) and (terms := licences.understand(words)):
        loc = ("provenance", "license")
        provenance["license"] = terms.license
        if terms.url and "license_link" not in provenance:
            provenance["license_link"] = {"url": terms.url}
            document.moved[("provenance", "license_link")] = loc
            fix = f"write `license: proprietary` and `license_link: {{url: {terms.url}}}`"
            hints.append(LICENCE_SPELLING.at(document.place(loc), "the licence is a URL", fix))
        elif terms.license != words:
            message = f"{shown(words)} is `{terms.license}` in SPDX"
            if terms.license == licences.PROPRIETARY:
                message = f"{shown(words)} is written in lower case"
            hints.append(LICENCE_SPELLING.at(document.place(loc), message, f"write `{terms.license}`"))
