"""The working tree's template as a released forge, and what both engines make of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .feedstocks import git

ROOT = Path(__file__).parents[2]

ANSWERS = {
    "id": "noaa-oisst",
    "title": "NOAA Optimum Interpolated SST",
    "description": "Daily sea surface temperature",
    "provider_name": "NOAA NCEI",
    "provider_url": "https://www.ncei.noaa.gov/products/optimum-interpolation-sst",
    "license": "CC0-1.0",
    "maintainers": "Ada Lovelace @ada 0000-0001-5999-4917",
    "kind": "xarray",
    "store": "icechunk",
    "bakery": "local",
    "label": "dev",
    "forge": "ocean-forge/forge",
}


PARTS = ("copier.yml", "cookiecutter.json", "template", "templates", "staged", "hooks")
"""What the template is made of, beside cookiecutter's link to it."""


def put(name: str, folder: Path) -> None:
    """Copy a part of the working tree's template."""
    if (ROOT / name).is_dir():
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(ROOT / name, folder)


def release(folder: Path, version: str = "v1.0.0") -> Path:
    """The working tree's template, committed and tagged in a repository of its own."""
    folder.mkdir(parents=True)
    for name in PARTS:
        put(name, folder)
    shutil.copy(ROOT / ".gitignore", folder)  # of what Python writes beside a hook
    (folder / "{{cookiecutter.feedstock_name}}").symlink_to("template")
    git(folder, "init", "--quiet")
    commit(folder, version)
    return folder


def commit(folder: Path, version: str | None = None) -> str:
    """Commit everything, with a tag if there is a version; returns the commit."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", version or "Change")
    if version:
        git(folder, "tag", version)
    return git(folder, "rev-parse", "HEAD")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, git's own aside."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if ".git" not in p.relative_to(folder).parts}


def begin(folder: Path) -> Path:
    """Make a generated feedstock a repository with one commit."""
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def status(folder: Path) -> list[str]:
    """What git says has changed, a file a line."""
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()
