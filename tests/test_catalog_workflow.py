"""The workflow that makes the catalog's website and publishes it, called as an organisation's repository calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import actions
from support.catalogs import publish
from support.feedstocks import Feedstock, git

CALLER = """
name: Catalog
on:
  workflow_dispatch:
permissions: {}
jobs:
  catalog:
    name: Catalog
    uses: %(forge)s/.github/workflows/catalog.yml@%(commit)s
    permissions:
      pages: write
      id-token: write
    with:
      sources: "%(sources)s"
      title: 'Ours; $(touch "$ARTIFACTS/ran")'
"""


@pytest.mark.slow
def test_the_website_is_built_without_rights_and_published_by_another_job(forge: actions.Forge, tmp_path: Path) -> None:
    publish(tmp_path / "a")
    (publish(tmp_path / "b", "lake") / "v1.0.0.json").unlink()
    ours = Feedstock(forge.server, "pangeo-forge/website")
    values = {"forge": actions.FORGE, "commit": forge.commit, "sources": f"{tmp_path}/a {tmp_path}/b"}
    ours.write(".github/workflows/catalog.yml", CALLER % values)
    git(ours.folder, "init", "--quiet")
    ours.commit("Begin")
    payload = tmp_path / "dispatch.json"
    payload.write_text(json.dumps({"inputs": {}, "repository": {"default_branch": "main"}}))
    done = actions.run(forge, ours, "catalog.yml", "workflow_dispatch", payload)
    assert done.outcomes == {"Catalog/Build": "success", "Catalog/Publish": "success"}, done.said
    assert "[catalog-entry-broken]" in done.said
    public = done.artifacts / "public"
    assert not (done.artifacts / "ran").exists()
    assert "Ours; $(touch" in (public / "index.html").read_text()
    assert (public / "ocean/v1/sst/index.html").exists()
    assert list((public / "ocean/v1/sst").glob("quicklook-*.png"))
    assert not (public / "lake").exists()
