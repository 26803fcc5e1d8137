"""Feedstocks from the template, as a contributor makes them, in repositories on the forge's server."""

from __future__ import annotations

import copier

from .actions import FORGE, Forge
from .feedstocks import Feedstock, git

ANSWERS = {
    "title": "Sea surface temperature",
    "description": "A small dataset",
    "provider_name": "NOAA NCEI",
    "provider_url": "https://www.ncei.noaa.gov",
    "maintainers": "Ada Lovelace @ada",
    "forge": FORGE,
}


def generate(forge: Forge, name: str, *, repository_id: int = 4242, **answers: str) -> Feedstock:
    """A committed feedstock with the id ``name``; its workflows are pinned to the forge's commit."""
    feedstock = Feedstock(forge.server, f"pangeo-forge/{name}-feedstock", repository_id)
    data = ANSWERS | {"id": name} | answers
    copier.run_copy(str(forge.folder), feedstock.folder, data=data, defaults=True, quiet=True, vcs_ref="HEAD")
    git(feedstock.folder, "init", "--quiet")
    feedstock.commit("Begin")
    return feedstock


def generate_staged(forge: Forge, owner: str = "pangeo-forge") -> Feedstock:
    """The committed repository of staged recipes of an organisation, which takes pushes of its default branch."""
    staged = Feedstock(forge.server, f"{owner}/staged-recipes", 77)
    data = {"generates": "staged-recipes", "maintainers": "Rita Levi @rita; Ada Lovelace @ada", "forge": FORGE}
    copier.run_copy(str(forge.folder), staged.folder, data=data, defaults=True, quiet=True, vcs_ref="HEAD")
    git(staged.folder, "init", "--quiet")
    git(staged.folder, "config", "receive.denyCurrentBranch", "ignore")
    staged.commit("Begin")
    return staged
