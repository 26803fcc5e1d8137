"""Refuse for cookiecutter what Copier's validators refuse: they are read from copier.yml and say the same words."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jinja2
import yaml

# What `tojson` writes holds no single quote and no line break, so nothing in the answers can end this text early.
answers = json.loads(r'{{ cookiecutter | tojson }}')  # fmt: skip

# With --no-input, cookiecutter renders an answer that names `cookiecutter`; Copier looks at what was typed.
typed = json.loads(r'{{ _cookiecutter | tojson }}')  # fmt: skip
answers |= {name: text for name, text in typed.items() if isinstance(text, str) and re.search("[{][%#{]", text)}

# cookiecutter passes on a path as it was typed, and starts hooks in the new folder: it is from where the person is, or
# where the output goes, that the path may lead to the template.
places = (Path(place, answers["_repo_dir"]) for place in (os.environ.get("PWD", ""), Path.cwd().parent))
forge = next((place for place in places if (place / "copier.yml").is_file()), None)
if forge is None:
    sys.exit(f"There is no template at {answers['_repo_dir']}: give cookiecutter its whole path, or its git URL.")

if not (forge / "template").is_dir() or not any(path.is_dir() for path in forge.glob("*cookiecutter.feedstock_name*")):
    sys.exit(
        "This copy of the template lost its symbolic link (a zip download, or git with core.symlinks=false): "
        "give cookiecutter the template's git URL, or use `copier copy`, which needs no link."
    )

found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=forge, capture_output=True, text=True)
commit = found.stdout.strip() if (forge / ".git").exists() else ""

# Only a clone that a person works in can hold more than its commit: the tree would claim a commit that it is not from.
parts = ("template", "templates", "hooks", "copier.yml", "cookiecutter.json")
changed = ["git", "status", "--porcelain", "--", *parts]
if commit and subprocess.run(changed, cwd=forge, capture_output=True, text=True, check=True).stdout:
    sys.exit("The template holds changes that no commit holds: commit them first, or nothing can be pinned to them.")

environment = jinja2.Environment()  # noqa: S701 - it renders sentences for a terminal, not HTML
environment.filters["regex_search"] = lambda value, pattern: (re.search(pattern, value) or [None])[0]
environment.filters["regex_replace"] = lambda value, pattern, new: re.sub(pattern, new, value)
context = {
    **answers,
    "_copier_conf": {"vcs_ref_hash": commit},
    "_copier_answers": {"_src_path": answers["_template"]},
}


def render(text: str) -> str:
    """Render an expression of copier.yml with the answers."""
    return environment.from_string(text).render(context)


refused = []
for name, question in yaml.safe_load((forge / "copier.yml").read_text(encoding="utf-8")).items():
    if name == "github":
        context[name] = render(question["default"])
    if name.startswith("_") or name not in answers or "validator" not in question:
        continue
    # What Copier would not ask takes its default there, and so does it here.
    if render(question.get("when", "True")) == "False":
        context[name] = render(question["default"])
    if wrong := render(question["validator"]).strip():
        refused.append(f"{name}: {wrong}")
if refused:
    sys.exit("\n".join(refused))
