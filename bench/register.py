"""Registration, held against Prefect's own commands for the same work, on SQLite and on PostgreSQL.

`feedstock register` makes deployments and starts their runs. `prefect deploy --all` only makes deployments; who wants
the runs too gives `prefect deployment run` for each. So the whole is held against both commands, and what passes until
all deployments stand against the first alone; both are held to the goals.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import bench
from bench import Figure, Series, say, scaled
from demo import services

FEEDSTOCK = Path(sys.executable).with_name("feedstock")
PREFECT = Path(sys.executable).with_name("prefect")
GOALS = {1: 5, 20: 10, 1000: 50}
TURNS = {1: 5, 20: 3}
"""How often each count is taken; the larger ones once, which takes long enough to tell."""
FEW = 3
"""How many runs the peer starts in a turn; each takes as long as the next."""
FEW_DEPLOYED = 100
"""How many deployments the peer makes at the most; each of the others counts as each of these does, start-up aside."""
SETTINGS = {"PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false"}
"""Of the server: nobody works here, and to write down of each run that it is late keeps a server from its work."""
DICT_FROM = 1000
"""From this many recipes on they stand in one dict, as recipes that are built alike do."""

_META = """\
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
_RECIPE = """\
def one(target: str, mode: str = "complete", prune: bool = False) -> None: ...


many = {{f"year-{{number}}": one for number in range({count})}}
"""
# The peer's flow takes what our recipes take; `prefect deploy` imports it to read that.
_FLOW = """\
from prefect import flow


@flow
def one(target: str, mode: str = "complete", prune: bool = False) -> None: ...
"""


def run() -> list[Figure | Series]:
    """New recipes at four counts, in turns with the peer; then the largest again, unchanged."""
    counts = scaled([1, 20, 100, 1000], [1, 3])
    found: list[Figure | Series] = []
    with tempfile.TemporaryDirectory(prefix="bench-register-") as scratch:
        for name, database in (("SQLite", None), ("PostgreSQL", _postgresql)):
            home = Path(scratch, name)
            home.mkdir()
            with contextlib.ExitStack() as stack:
                settings = dict(SETTINGS)
                if database:
                    if not (programs := _postgresql_programs()):
                        say("PostgreSQL is left out: it is not installed here (Debian: apt install postgresql)")
                        continue
                    settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = stack.enter_context(database(programs))
                say(f"starting Prefect on {name}")
                server = stack.enter_context(services.serve(home / "prefect", **settings))
                found += _Race(name, server, home).run(counts)
    return found


class _Race:
    """Ours and the peer against one server."""

    def __init__(self, database: str, server: services.Server, home: Path) -> None:
        self.database = database
        self.home = home
        self.environment = bench.environment(services.quiet(home / "prefect") | server.environment)
        self.made = 0
        with server.client(patience=120) as client:
            client.create_work_pool("local", "process", "for the benchmark")
            client.create_work_queue("local", "dev")
        self._ours(1)  # both once before the clock runs: the first process of each compiles its bytecode
        self._theirs(1)

    def run(self, counts: list[int]) -> list[Figure | Series]:
        """The figures of this database."""
        ours, theirs = [], []
        found: list[Figure | Series] = []
        for count in counts:
            turns = scaled(TURNS.get(count, 1), 1)
            taken = []
            for turn in range(turns):
                taken.append((*self._ours(count), *self._theirs(count)))
                plan, stand, register, deploy, run = taken[-1]
                said = (
                    f"plan {plan:.2f} s, register {register:.2f} s, of which deployments {stand:.2f} s; "
                    f"deploy {deploy:.2f} s, each run {run:.2f} s"
                )
                say(f"{self.database}, {count} recipes: {said} ({turn + 1}/{turns})")
            plan, stand, register, deploy, run = map(median, zip(*taken, strict=True))
            if count > FEW_DEPLOYED:
                deploy += (count - FEW_DEPLOYED) * (deploy - theirs[0]) / (FEW_DEPLOYED - counts[0])
            ours.append(register)
            theirs.append(deploy)
            if count in GOALS:
                times = f"medians of {turns}" if turns > 1 else "once"
                what = f"{'a dict of ' if count >= DICT_FROM else ''}{count:,} new recipe{'s' if count > 1 else ''}"
                seconds = f"{register:.2f} s to {deploy:.1f} s"
                some = f" ({FEW} of them)" if count > FEW else ""
                deployed = f" ({FEW_DEPLOYED} of them)" if count > FEW_DEPLOYED else ""
                found += [
                    Figure(
                        f"register {what} and start the runs, {self.database}",
                        (deploy + count * run) / register,
                        "times as fast",
                        f"≥ {GOALS[count]}",
                        f"`prefect deploy --all`{deployed}, and `prefect deployment run` for each{some}",
                        f"{seconds} and {run:.2f} s a run, {times}; planning took {plan:.2f} s",
                    ),
                    Figure(
                        f"register {what}, until the deployments stand, {self.database}",
                        deploy / stand,
                        "times as fast",
                        f"≥ {GOALS[count]}",
                        f"`prefect deploy --all`{deployed}, which starts no run",
                        f"{stand:.2f} s to {deploy:.1f} s",
                    ),
                ]
        requests = self._requests_again(counts[-1])
        found += [
            Figure(
                f"requests to register {counts[-1]:,} recipes again, unchanged, {self.database}",
                requests,
                "requests",
                "≤ 3",
            ),
            Series(f"feedstock register, {self.database}", "recipes", [float(count) for count in counts], ours),
            Series(f"prefect deploy --all, {self.database}", "recipes", [float(count) for count in counts], theirs),
        ]
        return found

    def _ours(self, count: int) -> tuple[float, float, float]:
        """The seconds that planning takes, and registering until all deployments stand, and until the runs do too."""
        folder, event = self._feedstock(count)
        plan, _ = self._feedstock_command("plan", folder, event, "--output", "plan.json")
        register, lines = self._feedstock_command("register", folder, event, "plan.json")
        return plan, max(at for at, line in lines if line.startswith("created deployment ")), register

    def _requests_again(self, count: int) -> int:
        """How many requests a second registration of the same release makes, counted where they leave."""
        folder, event = self._feedstock(count)
        self._feedstock_command("plan", folder, event, "--output", "plan.json")
        self._feedstock_command("register", folder, event, "plan.json")
        done = subprocess.run(
            [sys.executable, "-c", _COUNTING, *self._register_words(folder, event, "plan.json")],
            cwd=folder, env=self._job(folder, event), check=True, capture_output=True, text=True,
        )  # fmt: skip
        return int(done.stdout.splitlines()[-1])

    def _theirs(self, count: int) -> tuple[float, float]:
        """The seconds that making the deployments takes, and starting one run."""
        self.made += 1
        folder = self.home / f"peer-{self.made}"
        folder.mkdir()
        (folder / "flow.py").write_text(_FLOW, encoding="utf-8")
        deployments = [
            {
                "name": f"peer-{self.made}-{number}",
                "entrypoint": "flow.py:one",
                "work_pool": {"name": "local", "work_queue_name": "dev"},
                "pull": [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}],
            }
            for number in range(min(count, FEW_DEPLOYED))
        ]
        # JSON is YAML.
        (folder / "prefect.yaml").write_text(json.dumps({"deployments": deployments}), encoding="utf-8")
        began = perf_counter()
        self._prefect(folder, "deploy", "--all")
        deployed = perf_counter()
        for number in range(min(count, FEW)):
            self._prefect(folder, "deployment", "run", f"one/peer-{self.made}-{number}", "--param", "target=nowhere")
        return deployed - began, (perf_counter() - deployed) / min(count, FEW)

    def _prefect(self, folder: Path, *words: str) -> None:
        command = [PREFECT, "--no-prompt", *words]
        done = subprocess.run(command, cwd=folder, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"prefect {words[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")

    def _feedstock(self, count: int) -> tuple[Path, Path]:
        """A released feedstock of so many recipes, new to the server; and the event of its release."""
        self.made += 1
        name = f"bench-{self.made}"
        folder = self.home / f"pangeo-forge/{name}-feedstock"
        (folder / "feedstock").mkdir(parents=True)
        listed = [{"id": f"year-{number}", "object": "recipe:one"} for number in range(count)]
        recipes = json.dumps({"dict_object": "recipe:many"} if count >= DICT_FROM else listed)
        (folder / "feedstock/meta.yaml").write_text(_META.format(id=name, recipes=recipes), encoding="utf-8")
        (folder / "feedstock/recipe.py").write_text(_RECIPE.format(count=count), encoding="utf-8")
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgSign=false"]
        for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "Begin"], ["tag", "v1.0.0"]):
            subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)
        event = self.home / f"{name}.json"
        repository = {"full_name": f"pangeo-forge/{name}-feedstock", "id": 4242 + self.made, "default_branch": "main"}
        release = {"tag_name": "v1.0.0", "draft": False, "prerelease": False}
        event.write_text(json.dumps({"action": "published", "release": release, "repository": repository}))
        return folder, event

    def _job(self, folder: Path, event: Path) -> dict[str, str]:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True)
        return self.environment | {
            "GITHUB_SERVER_URL": self.home.as_uri(),
            "GITHUB_REPOSITORY": f"pangeo-forge/{folder.name}",
            "GITHUB_REPOSITORY_ID": str(json.loads(event.read_text())["repository"]["id"]),
            "GITHUB_SHA": head.stdout.strip(),
            "GITHUB_ACTOR": "ada",
        }

    def _register_words(self, folder: Path, event: Path, *words: str) -> list[str]:
        return ["register", *words, "-C", str(folder), "--event-name", "release", "--event", str(event)]

    def _feedstock_command(
        self, command: str, folder: Path, event: Path, *words: str
    ) -> tuple[float, list[tuple[float, str]]]:
        """The seconds that it took, and the lines of its progress, each with the seconds until it came."""
        arguments = self._register_words(folder, event, *words)[1:]
        environment = self._job(folder, event)
        began = perf_counter()
        # What a workflow's jobs have: planning holds no secret, and this server asks for none.
        process = subprocess.Popen(
            [FEEDSTOCK, command, *arguments],
            cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with process:
            lines = [(perf_counter() - began, line) for line in process.stderr or ()]
        took = perf_counter() - began
        if process.returncode:
            said = "".join(line for _, line in lines)
            raise RuntimeError(f"feedstock {command} ended with {process.returncode}: {said}")
        return took, lines


# Runs the command and prints how many HTTP requests it made.
_COUNTING = """
import sys
import httpx
sent = []
send = httpx.Client.send
httpx.Client.send = lambda client, request, **words: (sent.append(request), send(client, request, **words))[1]
from feedstock_forge.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
print(len(sent))
"""


def _postgresql_programs() -> Path | None:
    """The folder with `initdb` and `postgres`; Debian keeps it away from PATH."""
    for folder in [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        Path(shutil.which("initdb") or "/-").parent,
    ]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


@contextlib.contextmanager
def _postgresql(programs: Path) -> Iterator[str]:
    """A PostgreSQL server on loopback with a fresh database, and its URL; gone at the end, with its files.

    PostgreSQL refuses to run as root, who lets `postgres` (or `nobody`) run it.
    """
    user = None
    if os.getuid() == 0:
        known = {entry.pw_name for entry in pwd.getpwall()}
        user = next(name for name in ("postgres", "nobody") if name in known)
    with tempfile.TemporaryDirectory(prefix="bench-postgresql-") as scratch:
        folder, port = Path(scratch), services.free_port()
        folder.chmod(0o755)
        data = folder / "data"
        data.mkdir()
        if user:
            shutil.chown(data, user)
            shutil.chown(folder, user)
        say(f"starting PostgreSQL from {programs}")
        subprocess.run(
            [programs / "initdb", "--pgdata", data, "--auth", "trust", "--username", "prefect", "--encoding", "UTF8"],
            user=user, check=True, capture_output=True, cwd=folder,
        )  # fmt: skip
        words = [programs / "postgres", "-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(words, user=user, stdout=log, stderr=log, cwd=folder)
        try:
            address = ["--host", "127.0.0.1", "--port", str(port), "--username", "prefect"]
            waiting = [programs / "pg_isready", "--timeout", "30", *address, "--dbname", "postgres"]
            for _ in range(60):
                if subprocess.run(waiting, capture_output=True).returncode == 0:
                    break
                server.wait(0.5) if server.poll() is not None else subprocess.run(["sleep", "0.5"])
            subprocess.run([programs / "createdb", *address, "prefect"], check=True, capture_output=True)
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
        finally:
            server.send_signal(2)  # "fast" shutdown: it ends its clients' transactions
            server.wait(30)
