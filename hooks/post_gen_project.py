"""Pin what cookiecutter rendered to the template's commit, and write the answers from which `copier update` goes on."""

import json
import os
import re
import subprocess
from pathlib import Path

import yaml

# What `tojson` writes holds no single quote and no line break, so nothing in the answers can end this text early.
answers = json.loads(r'{{ cookiecutter | tojson }}')  # fmt: skip
address = answers["_template"]
# As in the other hook, which has found it.
places = (Path(place, answers["_repo_dir"]) for place in (os.environ.get("PWD", ""), Path.cwd().parent))
forge = next(place for place in places if (place / "copier.yml").is_file())


def git(*arguments: str) -> str:
    """What git says in the template's repository."""
    return subprocess.check_output(["git", *arguments], cwd=forge, text=True).strip()


# As copier.yml computes it; the tests hold the two together.
github = re.match(
    r"(?:gh:|(?:git[+])?(?:https?|ssh|git)://(?:[^/@]+@)?(?:www[.]|ssh[.])?github[.]com(?::[0-9]+)?/"
    r"|(?:[^/@]+@)?github[.]com:)/*(.+?)/*(?:[.]git)?/*$",
    address,
)
version = git("describe", "--tags", "--always")
pins = {
    answers["_forge"]: github[1] if github else answers["forge"],
    answers["_forge_commit"]: git("rev-parse", "HEAD"),
    answers["_forge_version"]: version,
}
for path in Path().rglob("*"):
    if path.is_file():
        text = pinned = path.read_bytes()
        for mark, pin in pins.items():
            pinned = pinned.replace(mark.encode(), pin.encode())
        if pinned != text:
            path.write_bytes(pinned)

# Copier records what it asked, and nothing that it computed.
asked = {name: value for name, value in answers.items() if not name.startswith("_") and name != "feedstock_name"}
if github:
    del asked["forge"]
if asked["license"] != "proprietary":
    del asked["license_url"]
if asked["kind"] != "xarray":
    del asked["chunk_size"]
recorded = {"_commit": version, "_src_path": address, **asked}
text = yaml.dump(recorded, indent=4, allow_unicode=True, default_flow_style=False)
Path(".copier-answers.yml").write_text(
    f"# Written by Copier and read by `copier update`; never edit it by hand.\n{text}", encoding="utf-8"
)
