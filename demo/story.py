"""The demonstration: every step is a command that a person could type, and is printed as one."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from demo import picture, provider, services

ROOT = Path(__file__).parents[1]
OWNER, FEEDSTOCK, TAG = "pangeo-forge", "ocean-temperature", "v1.0.0"
ANSWERS = {
    "id": FEEDSTOCK,
    "title": "Ocean temperature",
    "description": "Daily sea surface temperature and sea ice, made up for the demonstration",
    "provider_name": "The demonstration",
    "provider_url": "https://example.org/ocean",
    "license": "CC0-1.0",
    "maintainers": "You @you",
    "kind": "xarray",
    "store": "icechunk",
    "bakery": "local",
    "label": "dev",
    "forge": "pangeo-forge/feedstock-forge",
}


class Demo:
    """One demonstration in one folder; :meth:`run` is its story."""

    def __init__(self, output: Path, keep: bool) -> None:
        self.output = output
        self.keep_asked = keep
        self.finished = False
        self.began = time.monotonic()
        self.times: list[tuple[str, float]] = []
        self.folder = self.output / OWNER / f"{FEEDSTOCK}-feedstock"
        self.bakeries = self.output / "bakeries"
        self.datasets = self.output / "datasets"
        self.home = self.output / "prefect"

    def keep(self) -> bool:
        """Whether the services stay up: only after everything went well, and only if asked."""
        return self.keep_asked and self.finished

    def run(self) -> None:
        """Run all of it."""
        print("Feedstock Forge: from a template to a dataset, on this machine alone.\n")
        with contextlib.ExitStack() as stack:
            # Prefect takes the longest to start, so it does while the rest is prepared.
            server = stack.enter_context(services.start(self.home, ui=True, keep=self.keep))
            with self.step("Generate a feedstock from this repository's template"):
                self.generate()
            with self.step("Write the provider's files and serve them over HTTP"):
                files = provider.write_inputs(self.output / "inputs")
                url = stack.enter_context(provider.serve(self.output / "inputs"))
                size = sum(file.stat().st_size for file in files) / 2**20
                say(f"{len(files)} NetCDF files, {size:.1f} MiB, at {url}")
            with self.step(f"Name the files in the recipe, commit, and release {TAG}"):
                self.release([f"{url}/{file.name}" for file in files])
            with self.step("Wait for Prefect, and serve the local bakery"):
                server.wait()
                self.describe_bakery()
                worker = stack.enter_context(services.work(server, self.bakeries, keep=self.keep))
                say(f"Prefect at {server.client().ui}, a worker for the label local.dev")
            with self.step("Plan: import the recipe with no secret in the environment"):
                self.feedstock("plan", "-C", self.folder, *self.event, "-o", self.output / "plan.json")
            with self.step("Register: the key, but nothing of the feedstock's"):
                self.until_served(server)
                options = ("--bakeries", self.bakeries)
                self.feedstock("register", self.output / "plan.json", *self.event, *options, env=server.environment)
            with self.step("Watch the run until it ends"):
                self.feedstock("watch", self.output / "plan.json", *self.event, env=server.environment)
            dataset = self.datasets / FEEDSTOCK / "v1" / f"{FEEDSTOCK}.icechunk"
            with self.step("Open the dataset, and compare it with its inputs, value for value"):
                self.check(dataset, files)
            with self.step("Draw it, and make a website of the catalog"):
                drawn = picture.draw(str(dataset), self.output / f"{FEEDSTOCK}.png")
                say(f"{drawn.relative_to(ROOT)}")
                self.feedstock("catalog", "build", self.datasets, "-o", self.output / "catalog")
            self.finished = True
            self.conclude(server, worker, dataset)

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """One step: says what, and afterwards how long."""
        print(f"{len(self.times) + 1}. {what}", flush=True)
        began = time.monotonic()
        yield
        self.times.append((what, time.monotonic() - began))
        print(f"   done in {self.times[-1][1]:.1f} s\n", flush=True)

    def generate(self) -> None:
        """The feedstock, as a contributor would make it."""
        answers = self.output / "answers.yml"
        answers.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in ANSWERS.items()), encoding="utf-8")
        say(f"$ copier copy --data-file answers.yml --defaults . {self.folder.relative_to(ROOT)}")
        command = ["copy", "--quiet", "--defaults", "--vcs-ref", "HEAD", "--data-file", str(answers)]
        call([str(Path(sys.executable).with_name("copier")), *command, str(ROOT), str(self.folder)])
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.relative_to(self.folder).parts[0] in ("feedstock", ".github"):
                say(str(path.relative_to(self.folder)))

    def release(self, urls: list[str]) -> None:
        """What a scientist edits, and what a maintainer does on GitHub."""
        recipe = self.folder / "feedstock" / "recipe.py"
        before = recipe.read_text(encoding="utf-8")
        start = before.index("INPUTS = [")
        end = before.index("]\n", start) + 2
        listed = "INPUTS = [\n" + "".join(f"    {json.dumps(url)},\n" for url in urls) + "]\n"
        recipe.write_text(before[:start] + listed + before[end:], encoding="utf-8")
        for command in (
            ["init", "--quiet", "--initial-branch", "main"],
            ["add", "--all"],
            ["commit", "--quiet", "--message", "Begin"],
            ["tag", TAG],
        ):
            git(self.folder, *command)
        repository = {
            "id": 1,
            "name": self.folder.name,
            "full_name": f"{OWNER}/{self.folder.name}",
            "default_branch": "main",
        }
        release = {"tag_name": TAG, "name": TAG, "draft": False, "prerelease": False, "target_commitish": "main"}
        payload = {"action": "published", "release": release, "repository": repository, "sender": {"login": "you"}}
        (self.output / "release.json").write_text(json.dumps(payload, indent=2), encoding="utf-8")
        say(f"{TAG} is commit {git(self.folder, 'rev-parse', 'HEAD')[:12]} of {OWNER}/{self.folder.name}")

    @property
    def event(self) -> tuple[str | Path, ...]:
        """The event, as GitHub would hand it to the workflow."""
        return ("--event-name", "release", "--event", self.output / "release.json")

    def describe_bakery(self) -> None:
        """The bundled bakery, writing into the demonstration's folder."""
        shutil.copytree(ROOT / "bakeries", self.bakeries)
        described = self.bakeries / "local" / "bakery.yaml"
        text = described.read_text(encoding="utf-8")
        described.write_text(text.replace("file://~/feedstock-datasets", self.datasets.as_uri()), encoding="utf-8")

    def until_served(self, server: services.Server) -> None:
        """Wait until the worker has made its queue, as an operator's has long before anybody releases."""
        with server.client() as client:
            for _ in range(240):
                if client.work_pool("local") and "dev" in client.work_queues("local"):
                    return
                time.sleep(0.25)
        raise RuntimeError("the worker did not start; see demo-output/prefect")

    def feedstock(self, *arguments: str | Path, env: dict[str, str] | None = None) -> None:
        """The `feedstock` command, in an environment that holds what GitHub's job would and nothing else."""
        words = [str(argument) for argument in arguments]
        shown = [word.replace(f"{ROOT}/", "") for word in words]
        say(f"$ feedstock {shlex.join(shown)}")
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
        job = {
            "GITHUB_SERVER_URL": self.output.as_uri(),
            "GITHUB_SHA": git(self.folder, "rev-parse", "HEAD"),
            "PYTHONUNBUFFERED": "1",
        }
        call([sys.executable, "-m", "feedstock_forge", *words], env=inherited | job | (env or {}))

    def check(self, dataset: Path, files: list[Path]) -> None:
        """Show the dataset, and fail loudly where a value is not its input's."""
        opened = provider.open_dataset(str(dataset))
        print("\n".join(f"   {line}" for line in repr(opened).splitlines()))
        differences = provider.check(str(dataset), files)
        if differences:
            raise RuntimeError("the dataset is not what its inputs hold:\n  " + "\n  ".join(differences))
        values = sum(variable.size for variable in opened.variables.values())
        say(f"all {values:,} values are those of the {len(files)} inputs")

    def conclude(self, server: services.Server, worker: services.Worker, dataset: Path) -> None:
        """What was done, where, how long it took, and where to look next."""
        print(f"Finished in {time.monotonic() - self.began:.0f} s.\n")
        for what, seconds in self.times:
            print(f"  {seconds:6.1f} s  {what}")
        print(f"""
  registered   flow {FEEDSTOCK}.{FEEDSTOCK}, deployment local.dev, version {TAG}
  ran on       the local bakery: a Prefect process worker on this machine
  dataset      {dataset.relative_to(ROOT)}
  picture      {(self.output / f"{FEEDSTOCK}.png").relative_to(ROOT)}
  catalog      {(self.output / "catalog" / "index.html").relative_to(ROOT)}
  feedstock    {self.folder.relative_to(ROOT)}

Look next at feedstock/recipe.py in the feedstock, at README.md, and at docs/.""")
        if self.keep_asked:
            print(f"\nPrefect is still up at {server.client().ui}; this stops it and its worker:")
            print(f"  kill {worker.pid} {server.pid}")


def say(line: str) -> None:
    """A line of a step."""
    print(f"   {line}", flush=True)


def call(command: list[str], env: dict[str, str] | None = None) -> None:
    """Run a program and show what it says, indented. Raises ``RuntimeError`` if it fails."""
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        try:
            for line in program.stdout or ():
                say(line.rstrip())
        except KeyboardInterrupt:
            program.terminate()
            raise
    if program.returncode:
        raise RuntimeError(f"{Path(command[0]).name} ended with status {program.returncode}")


def git(folder: Path, *arguments: str) -> str:
    """Run git with an identity of its own, whatever this machine's configuration says."""
    identity = ["-c", "user.name=Demo", "-c", "user.email=demo@example.org", "-c", "commit.gpgSign=false"]
    command = ["git", *identity, "-c", "tag.gpgSign=false", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
