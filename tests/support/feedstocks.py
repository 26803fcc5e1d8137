"""Small feedstocks in git repositories, laid out as on a server: ``<server>/<owner>/<name>``."""

from __future__ import annotations

import os
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

from . import events

META = """
id: {id}
version: "1.0"
title: Sea surface temperature
description: A small dataset
recipes: {recipes}
provenance:
  providers: [{{name: NOAA, roles: [producer], url: "https://www.ncei.noaa.gov"}}]
  license: CC-BY-4.0
maintainers: [{{name: Ada, github: ada}}]
bakeries:
  - {{id: local, label: dev, on: [release, merge]}}
"""

RECIPE = """
from pathlib import Path

def sst(target, mode="complete", prune=False):
    '''Write down how it was called.'''
    path = Path(target.removeprefix("file://"))
    path.mkdir(parents=True, exist_ok=True)
    (path / "called").write_text(f"{mode} {prune}")
"""

IDENTITY = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


def git(folder: Path, *arguments: str) -> str:
    """Run git as Ada, with nobody's configuration; returns what it prints."""
    done = subprocess.run(
        ["git", "-c", "init.defaultBranch=main", "-c", "commit.gpgSign=false", *arguments],
        cwd=folder,
        env=os.environ | IDENTITY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


@dataclass(frozen=True)
class Feedstock:
    """A feedstock's repository."""

    server: Path
    repository: str
    repository_id: int = 4242

    @property
    def folder(self) -> Path:
        return self.server / self.repository

    @property
    def head(self) -> str:
        return git(self.folder, "rev-parse", "HEAD")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")

    def commit(self, message: str = "Change") -> str:
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--allow-empty", "--message", message)
        return self.head

    def release(self, tag: str) -> Path:
        """Tag the head and return the file of the event that GitHub would send."""
        git(self.folder, "tag", tag)
        payload = events.release(tag, self.repository, repository_id=self.repository_id)
        return events.write(payload, self.server / f"release-{self.folder.name}-{tag.replace('/', '-')}.json")

    def merge(self, message: str = "Merge pull request #7 from ada/more") -> Path:
        """The file of the event that GitHub would send for a merge of the head."""
        payload = events.push(self.head, self.repository, repository_id=self.repository_id, message=message)
        return events.write(payload, self.server / f"push-{self.folder.name}-{self.head}.json")

    def environment(self) -> dict[str, str]:
        """What GitHub would set in a job for the head."""
        return {
            "GITHUB_SERVER_URL": self.server.as_uri(),
            "GITHUB_REPOSITORY": self.repository,
            "GITHUB_REPOSITORY_ID": str(self.repository_id),
            "GITHUB_SHA": self.head,
            "GITHUB_ACTOR": "ada",
        }


STAGED = "pangeo-forge/staged-recipes"


def stage(server: Path) -> Feedstock:
    """The staged recipes of an organisation with nothing proposed yet, committed."""
    staged = Feedstock(server, STAGED, 77)
    staged.folder.mkdir(parents=True)
    git(staged.folder, "init", "--quiet")
    staged.write("README.md", "Propose a recipe.")
    staged.commit("Begin")
    return staged


def make(server: Path, name: str = "sst", *, recipes: str | None = None, recipe: str = RECIPE) -> Feedstock:
    """A feedstock with one recipe (or with ``recipes``, the YAML of that key), committed."""
    feedstock = Feedstock(server, f"pangeo-forge/{name}-feedstock")
    feedstock.folder.mkdir(parents=True)
    git(feedstock.folder, "init", "--quiet")
    feedstock.write("feedstock/meta.yaml", META.format(id=name, recipes=recipes or '[{id: sst, object: "recipe:sst"}]'))
    feedstock.write("feedstock/recipe.py", recipe)
    feedstock.commit("Begin")
    return feedstock
