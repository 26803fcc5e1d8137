"""Runs a repository's workflow for an event in act: as processes of this machine, with neither Docker nor GitHub.

act follows GitHub closely where it counts here (jobs, steps, expressions, inputs, outputs, secrets), and what it lacks
is bridged in the open:

- ``$/path`` and ``job.workflow_repository`` are younger than act. They are written out as what they stand for: the
  forge's own repository at the commit that runs.
- Actions that speak to services which only GitHub runs are replaced by the small ones in ``stubs/``.
- What act ignores (triggers, permissions, concurrency, missing inputs) is tested elsewhere, by GitHub's own parser.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .feedstocks import Feedstock, git

ROOT = Path(__file__).parents[2]
STUBS = Path(__file__).parent / "stubs"
FORGE = "pangeo-forge/feedstock-forge"

# Beside PATH: where certificates are, and nothing that could be a secret or change what a step does.
_INHERITED = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "UV_DEFAULT_INDEX", "UV_INDEX_URL")


def tool(name: str) -> Path:
    """A program that ``make tools`` built, in the version that the Makefile names."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    version = re.search(rf"^{name.upper()}_VERSION := (\S+)", makefile, re.MULTILINE)
    assert version, f"the Makefile names no version of {name}"
    path = ROOT / f".tools/bin/{name}-{version[1]}"
    assert path.exists(), f"{path.relative_to(ROOT)} is missing: run `make tools`"
    return path


def uv() -> Path:
    """The uv that ``make`` uses."""
    found = shutil.which("uv", path=os.pathsep.join([os.environ["PATH"], str(ROOT / ".tools/uv/bin")]))
    assert found, "uv is missing: run `make setup`"
    return Path(found)


def tracked_files() -> list[Path]:
    """What a commit of the working tree would hold, relative to its root."""
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [Path(name) for name in sorted(set(listed)) if name and os.path.lexists(ROOT / name)]


@dataclass(frozen=True)
class Forge:
    """The forge as feedstocks see it: a repository on a server, and the commit that their workflows are pinned to."""

    server: Path
    commit: str
    rewritten: Path
    """That commit, in the words that act understands."""

    @property
    def folder(self) -> Path:
        """The repository; its default branch holds the grants."""
        return self.server / FORGE


def publish(server: Path, bakeries: Path) -> Forge:
    """Put the working tree on a server as the forge, with ``bakeries`` as its bakery database."""
    folder = server / FORGE
    for name in tracked_files():
        if name.parts[0] != "bakeries":
            _copy(ROOT / name, folder / name)
    shutil.copytree(bakeries, folder / "bakeries")
    git(folder, "init", "--quiet")
    return _commit(server, "The forge under test")


def renew(forge: Forge, message: str) -> Forge:
    """Commit what has changed in the forge's repository; the forge as it is then."""
    return _commit(forge.server, message)


def _commit(server: Path, message: str) -> Forge:
    folder = server / FORGE
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    commit = git(folder, "rev-parse", "HEAD")
    rewritten = server / f"forge-{commit}"
    # A plain copy without links: act reads it as it would an unpacked archive.
    shutil.copytree(folder, rewritten, ignore=_git_and_links)
    for path in action_files(rewritten):
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"(?<=uses: )\$/([\w./-]+)", rf"{FORGE}/\1@{commit}", text)
        path.write_text(text.replace("${{ job.workflow_repository }}", FORGE), encoding="utf-8")
    return Forge(server, commit, rewritten)


def action_files(folder: Path) -> list[Path]:
    """The workflows and the actions of the forge in a folder."""
    return [*sorted(folder.glob(".github/workflows/*.yml")), *sorted(folder.glob("shared_workflows/*/action.yml"))]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)


def _git_and_links(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == ".git" or Path(folder, name).is_symlink()]


@dataclass(frozen=True)
class Step:
    """A step that ran: its name, with those of the actions that it is a part of before it."""

    name: str
    outcome: str
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A job that ran, and its steps in their order."""

    outcome: str
    steps: tuple[Step, ...]

    @property
    def outcomes(self) -> dict[str, str]:
        """The outcome of every step by name."""
        return {step.name: step.outcome for step in self.steps}


@dataclass(frozen=True)
class Run:
    """What became of a workflow."""

    status: int
    jobs: Mapping[str, Job]
    """Every job that ran, by its name: ``<calling job>/<job>`` in a called workflow."""
    said: str
    """All that the steps printed."""
    log: str
    """All that act recorded."""
    summary: str
    """What the steps wrote for people, in Markdown."""
    artifacts: Path

    @property
    def outcomes(self) -> dict[str, str]:
        """The outcome of every job that ran."""
        return {name: job.outcome for name, job in self.jobs.items()}


def run(
    forge: Forge,
    repository: Feedstock,
    workflow: str,
    event: str,
    payload: Path,
    *,
    variables: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    job: Mapping[str, str] | None = None,
    artifacts: Path | None = None,
) -> Run:
    """Run ``.github/workflows/<workflow>`` of a repository for an event; ``job`` adds to GitHub's variables.

    ``artifacts`` are those of an earlier run, for a workflow that fetches them.
    """
    with tempfile.TemporaryDirectory(prefix="act-", dir=forge.server) as scratch:
        place = Path(scratch)
        artifacts = artifacts or forge.server / f"artifacts-{place.name}"
        for folder in (place / "home", artifacts):
            folder.mkdir(exist_ok=True)
        secret_file = place / "secrets"
        secret_file.write_text("".join(f"{name}={value}\n" for name, value in (secrets or {}).items()))
        environment = repository.environment() | {"ARTIFACTS": str(artifacts)} | dict(job or {})
        command = [str(tool("act")), event, "--directory", str(repository.folder)]
        command += ["--workflows", f".github/workflows/{workflow}", "--eventpath", str(payload), "--json"]
        command += ["--platform", "ubuntu-latest=-self-hosted", "--no-cache-server", "--actor", "ada"]
        command += ["--action-cache-path", str(place / "actions"), "--secret-file", str(secret_file)]
        command += ["--concurrent-jobs", "1"]
        for name, value in environment.items():
            command += ["--env", f"{name}={value}"]
        for name, value in (variables or {}).items():
            command += ["--var", f"{name}={value}"]
        server = environment["GITHUB_SERVER_URL"]
        for action, folder in _local_actions(forge, repository):
            command += ["--local-repository", f"{server}/{action}={folder}"]
        done = subprocess.run(
            command, env=_environment(place / "home"), capture_output=True, text=True, timeout=240, check=False
        )
        return _read(done, artifacts)


def _environment(home: Path) -> dict[str, str]:
    """act's own environment; all of it leaks into the steps."""
    cache = subprocess.run([uv(), "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | {
        "PATH": os.pathsep.join([str(uv().parent), os.environ["PATH"]]),
        "HOME": str(home),
        "UV_CACHE_DIR": cache,
        "UV_PYTHON": sys.executable,
        "NO_COLOR": "1",
    }


def _local_actions(forge: Forge, repository: Feedstock) -> Iterable[tuple[str, Path]]:
    """Every action that may be used, exactly as it is pinned, and the folder that stands for it."""
    yield f"{FORGE}@{forge.commit}", forge.rewritten
    workflows = [*action_files(forge.rewritten), *action_files(repository.folder)]
    pins = {pin for path in workflows for pin in re.findall(r"uses: ([\w.-]+/[\w.-]+@\w+)", path.read_text("utf-8"))}
    for pin in sorted(pins):
        stub = STUBS / pin.split("@")[0].split("/")[1]
        if stub.exists():
            yield pin, stub


def _read(done: subprocess.CompletedProcess[str], artifacts: Path) -> Run:
    names: dict[tuple[str, tuple[str, ...]], str] = {}
    steps: dict[str, dict[tuple[str, ...], Step]] = {}
    outputs: dict[tuple[str, tuple[str, ...]], dict[str, str]] = {}
    ended: dict[str, str] = {}
    said: list[str] = []
    summary: list[str] = []
    for line in done.stdout.splitlines():
        entry = json.loads(line)
        job = "/".join(entry.get("job", "").split("/")[1:]).strip()  # act pads names to a column
        identity = tuple(entry.get("stepID", ()))
        if entry.get("raw_output"):
            said.append(entry["msg"])
        if "jobResult" in entry:
            ended[job] = entry["jobResult"]
        if entry.get("stage") != "Main":
            continue
        if started := re.match(r"\S+ Run Main (.*)", entry["msg"], re.DOTALL):
            names[job, identity] = _name(started[1])
            steps.setdefault(job, {})[identity] = Step(names[job, identity], "started")
        elif entry.get("command") == "set-output":
            outputs.setdefault((job, identity), {})[entry["name"]] = entry["arg"]
        elif entry.get("command") == "summary":
            summary.append(entry["content"])
        elif "stepResult" in entry:
            above = [names[job, identity[:depth]] for depth in range(1, len(identity))]
            name = " / ".join([*above, names.get((job, identity), entry["step"])])
            steps.setdefault(job, {})[identity] = Step(name, entry["stepResult"], outputs.get((job, identity), {}))
    jobs = {name: Job(outcome, tuple(steps.get(name, {}).values())) for name, outcome in ended.items()}
    return Run(done.returncode, jobs, "".join(said), done.stdout + done.stderr, "\n".join(summary), artifacts)


def _name(step: str) -> str:
    """A step's name without what is the same everywhere: the forge's address and the pins."""
    return re.sub(rf"^{FORGE}/|@[0-9a-f]{{40}}$", "", step)
