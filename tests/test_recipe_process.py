"""A recipe at a bakery runs in a process of its own: without the worker's secrets, and gone when its run is."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from prefect.logging import disable_run_logger

from conftest import Command
from feedstock_forge import leash, recipe_process
from feedstock_forge.bake import Provenance
from feedstock_forge.findings import Finding, Refused
from feedstock_forge.flow import bake_recipe
from feedstock_forge.recipe_process import Job
from support import feedstocks, github, prefect, wheels
from support.feedstocks import Feedstock
from test_engines import FLOW, TWO_WORKERS


def job(feedstock: Feedstock, recipe: str, target: str = "") -> Job:
    feedstock.write("feedstock/recipe.py", recipe)
    origin = Provenance("sst", "sst", "pangeo-forge/sst-feedstock", run="a-run")
    return Job(str(feedstock.folder), "sst", target, "complete", False, origin)


def lines_of(job: Job) -> list[str]:
    lines: list[str] = []
    recipe_process.run(Path(sys.executable), job, lines.append)
    return lines


def finding(job: Job) -> Finding:
    with pytest.raises(Refused) as caught:
        lines_of(job)
    (only,) = caught.value.findings
    return only


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)
    return found


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_recipe_finds_storage_credentials_but_none_of_the_workers_and_none_reach_the_log(
    feedstock: Feedstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"hunter2-{name}")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    lines = lines_of(
        job(
            feedstock,
            """
            import logging, os, sys

            def sst(target, mode="complete", prune=False):
                print(sorted(name for name, value in os.environ.items() if "hunter2" in value))
                print(os.environ.get("PREFECT_API_URL"))
                print("it is", os.environ["AWS_SECRET_ACCESS_KEY"], file=sys.stderr)
                logging.getLogger("feedstock_forge.bake").info("two\\nlines")
            """,
        )
    )
    assert lines[:-1] == ["['AWS_SECRET_ACCESS_KEY']", "None", "it is ***", "two", "lines"]


def test_no_secret_leaves_a_recipe_in_pieces_or_in_what_it_raises(
    feedstock: Feedstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", 'hunter2-"ö"-hunter2')
    monkeypatch.setenv("SSH_KEY", "-----BEGIN KEY-----\nhunter2hunter2\n-----END KEY-----\n")
    recipe = """
    import os

    def sst(target, mode="complete", prune=False):
        print(os.environ["SSH_KEY"])
        for before in range({longest} - 40, {longest}):
            print("x" * before + os.environ["AWS_SECRET_ACCESS_KEY"] + "y" * {longest}, flush=True)
        raise ValueError("cannot sign with " + os.environ["AWS_SECRET_ACCESS_KEY"])
    """
    lines: list[str] = []
    told = job(feedstock, recipe.format(longest=recipe_process.MAX_LINE))
    with pytest.raises(Refused) as caught:
        recipe_process.run(Path(sys.executable), told, lines.append)
    assert caught.value.findings[0].message == "the recipe `sst` raised ValueError: cannot sign with ***"
    said = "".join(lines)
    assert "hunter" not in said
    assert "ter2" not in said
    assert said.count("***y") == 40


def test_what_a_recipe_puts_in_the_place_of_its_reply_keeps_nobody_waiting(feedstock: Feedstock) -> None:
    recipe = """
    import atexit, gc, os, sys, tempfile

    def sst(target, mode="complete", prune=False):
        reply = os.path.join(tempfile.gettempdir(), "reply.json")
        os.mkfifo(reply)
        os._exit(0)
    """
    assert finding(job(feedstock, recipe)).id == "recipe-died"


def test_a_recipe_is_not_kept_waiting_where_nobody_listens(feedstock: Feedstock) -> None:
    def say(line: str) -> None:
        raise BrokenPipeError

    recipe = "def sst(target, mode='complete', prune=False):\n    print(('x' * 1000 + chr(10)) * 1000)\n"
    told = job(feedstock, recipe)
    with pytest.raises(BrokenPipeError):  # by what the run says itself, at its end
        recipe_process.run(Path(sys.executable), told, say)


def test_a_recipe_that_yields_is_told_that_nothing_of_it_ran(feedstock: Feedstock) -> None:
    yields = "def sst(target, mode='complete', prune=False):\n    yield target\n"
    found = finding(job(feedstock, yields))
    assert found.id == "recipe-failed"
    assert "nothing of it runs" in found.message


def test_what_killed_runs_left_behind_is_removed(
    feedstock: Feedstock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "feedstock-run-killed").mkdir()
    lines_of(job(feedstock, "def sst(target, mode='complete', prune=False): ...\n"))
    assert list(tmp_path.glob("feedstock-run-*")) == []


def test_what_the_recipe_raises_is_a_finding_at_its_line(feedstock: Feedstock) -> None:
    raised = finding(
        job(feedstock, "def sst(target, mode='complete', prune=False):\n    raise ValueError('no year')\n")
    )
    assert (raised.id, str(raised.place)) == ("recipe-failed", "feedstock/recipe.py:2")
    missing = finding(job(feedstock, "import nosuchpackage\n"))
    assert missing.id == "recipe-import-failed"
    assert "add `nosuchpackage` to feedstock/requirements.txt" in missing.fix


RUNNING = """
import sys
from pathlib import Path
from feedstock_forge import recipe_process
from feedstock_forge.bake import Provenance
from feedstock_forge.findings import Refused

folder, target = sys.argv[1:]
job = recipe_process.Job(folder, "sst", target, "complete", False, Provenance("sst", "sst"))
try:
    recipe_process.run(Path(sys.executable), job, lambda line: None)
except Refused as refused:
    print(refused)
"""


def test_what_bake_refuses_reaches_a_flow_which_imports_nothing_of_bake(feedstock: Feedstock, tmp_path: Path) -> None:
    recipe = """
    from feedstock_forge.bake import bake

    def sst(target, mode="complete", prune=False):
        bake(["/none.nc"], target, concat_dim="time")
    """
    told = job(feedstock, recipe, str(tmp_path / "sst.icechunk"))
    command = [sys.executable, "-c", RUNNING, told.folder, told.target]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("input-missing: there is no file /none.nc")


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os._exit(3)", "status 3"),
        ("sys.exit('enough')", "status 1"),
    ],
)
def test_a_process_that_dies_is_told_with_what_ended_it(feedstock: Feedstock, end: str, said: str) -> None:
    died = finding(
        job(feedstock, f"import os, signal, sys\ndef sst(target, mode='complete', prune=False):\n    {end}\n")
    )
    assert died.id == "recipe-died"
    assert said in died.message


STUBBORN = """
import os, signal, subprocess, sys, time
from pathlib import Path

def sst(target, mode="complete", prune=False):
    '''Start another process, let nothing stop either, and say who they are.'''
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(target).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)
"""


def pids(path: Path) -> list[int]:
    return wait_for(lambda: [int(pid) for pid in path.read_text().split()] if path.exists() else [])


def test_a_recipe_ends_with_its_run_however_the_run_ends(feedstock: Feedstock, tmp_path: Path) -> None:
    told = job(feedstock, STUBBORN, str(tmp_path / "pids"))
    starter = multiprocessing.get_context("spawn").Process(
        target=recipe_process.run, args=(Path(sys.executable), told, print)
    )
    starter.start()
    started = pids(tmp_path / "pids")
    starter.kill()
    starter.join()
    wait_for(lambda: all(gone(pid) for pid in started))


def test_a_recipe_that_does_not_stop_when_asked_is_ended(
    feedstock: Feedstock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leash, "GRACE", 0.5)
    told = job(feedstock, STUBBORN, str(tmp_path / "pids"))

    class Cancelled(Exception): ...  # noqa: N818

    def cancel(number: int, frame: object) -> None:
        raise Cancelled

    before = signal.signal(signal.SIGTERM, cancel)
    watcher = subprocess.Popen(
        ["bash", "-c", f"until [ -s {tmp_path}/pids ]; do sleep 0.1; done; kill -TERM {os.getpid()}"]
    )
    try:
        with pytest.raises(Cancelled):
            lines_of(told)
    finally:
        signal.signal(signal.SIGTERM, before)
        watcher.wait()
    assert all(gone(pid) for pid in pids(tmp_path / "pids"))


class TestAtABakery:
    MEETS = """
    import time
    from pathlib import Path

    def sst(target, mode="complete", prune=False):
        '''Wait until the other recipe runs too, then say which version it is.'''
        import tiny
        meeting = Path({meeting!r})
        (meeting / tiny.version).touch()
        while len(list(meeting.iterdir())) < 2:
            time.sleep(0.1)
        path = Path(target.removeprefix("file://"))
        path.parent.mkdir(parents=True)
        path.write_text(tiny.version)
    """

    def register(
        self,
        command: Command,
        feedstock: Feedstock,
        server: prefect.Server,
        bakeries: Path,
        hub: github.GitHub | None = None,
    ) -> str:
        """Release a feedstock as its workflow does, and show it on GitHub; returns the id of its run."""
        event, plan = feedstock.release("v1.0.0"), feedstock.server / f"{feedstock.folder.name}.json"
        options = ["--event-name", "release", "--event", str(event)]
        env = feedstock.environment()
        command("plan", "-C", feedstock.folder, *options, "-o", plan, env=env)
        env |= server.environment
        if hub:
            env |= {"GITHUB_API_URL": hub.url, "GITHUB_TOKEN": hub.person("github-actions[bot]", 41898282)}
        shown = ["--report"] if hub else []
        command("register", plan, *options, *shown, "--bakeries", bakeries, env=env)
        if hub:
            command("watch", plan, *options, *shown, "--timeout", "120", env=env, code=None)
        name = feedstock.folder.name.removesuffix("-feedstock")
        with server.client() as client:
            tags = {"flow_runs": {"tags": {"all_": [f"feedstock:{name}"]}}}
            return str(client.request("POST", "/flow_runs/filter", tags)[0]["id"])

    def state(self, server: prefect.Server, run: str) -> dict[str, Any]:
        with server.client() as client:
            found: dict[str, Any] = next(iter(client.runs_by_id([run])))["state"]
            return found

    def ended(self, server: prefect.Server, run: str) -> dict[str, Any]:
        def final() -> dict[str, Any] | None:
            state = self.state(server, run)
            return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

        return wait_for(final, 120)

    def test_feedstocks_with_conflicting_requirements_run_at_once(
        self,
        command: Command,
        server: prefect.Server,
        worker: prefect.Worker,
        bakeries: Path,
        datasets: Path,
        tmp_path: Path,
    ) -> None:
        (tmp_path / "meeting").mkdir()
        runs = {}
        for version in ("1.0", "2.0"):
            wheel = wheels.make(tmp_path / "wheels", "tiny", version)
            name = f"tiny-{version[0]}"
            made = feedstocks.make(
                tmp_path / "server", name, recipe=self.MEETS.format(meeting=str(tmp_path / "meeting"))
            )
            made.write("feedstock/requirements.txt", f"tiny @ {wheel.as_uri()}\n")
            made.commit("Need tiny")
            runs[name] = self.register(command, made, server, bakeries)
        for name, run in runs.items():
            state = self.ended(server, run)
            assert state["type"] == "COMPLETED", state["message"]
            assert (datasets / name / "v1/sst.icechunk").read_text() == f"{name[-1]}.0"

    def test_a_run_that_meets_its_labels_limit_says_so_in_prefect_and_on_github(
        self,
        command: Command,
        server: prefect.Server,
        worker: prefect.Worker,
        bakeries: Path,
        datasets: Path,
        tmp_path: Path,
    ) -> None:
        hungry = """
        from pathlib import Path

        def sst(target, mode="complete", prune=False):
            held = [bytearray(64 << 20) for _ in range(1000)]
            Path(target.removeprefix("file://")).mkdir(parents=True)
        """
        made = feedstocks.make(tmp_path / "server", "hungry", recipe=hungry)
        meta = (made.folder / "feedstock/meta.yaml").read_text()
        limited = meta.replace("on: [release, merge]}", "on: [release, merge], resources: {memory: 300 MiB}}")
        made.write("feedstock/meta.yaml", limited)
        made.commit("Ask for little")
        with github.serve(made.server) as hub:
            hub.add(made.repository, made.repository_id)
            hub.publish(made.repository, "v1.0.0", "")
            state = self.state(server, self.register(command, made, server, bakeries, hub))
        fix = "`feedstock label request local dev --resources '600 MiB,2'`"
        assert state["type"] == "FAILED"
        assert "limit-memory" in state["message"]
        assert fix in state["message"]
        (deployment,) = hub.deployments[made.repository]
        assert hub.states(made.repository)["local.dev"][-1] == "failure"
        assert "limit-memory" in deployment["statuses"][-1]["description"]
        assert fix in str(hub.releases[made.repository, "v1.0.0"]["body"])
        assert hub.problems == []
        assert not (datasets / "hungry").exists()

    @pytest.mark.slow
    def test_a_flow_submits_its_tasks_to_the_bakerys_cluster(
        self,
        command: Command,
        server: prefect.Server,
        worker: prefect.Worker,
        bakeries: Path,
        datasets: Path,
        tmp_path: Path,
    ) -> None:
        shutil.copytree(bakeries, tmp_path / "bakeries")
        with (tmp_path / "bakeries/local/bakery.yaml").open("a") as described:
            described.write(f"\n{yaml.safe_dump({'engine': TWO_WORKERS.model_dump(exclude_none=True)})}")
        made = feedstocks.make(tmp_path / "server", "flowing", recipe=FLOW)
        run = self.register(command, made, server, tmp_path / "bakeries")
        state = self.ended(server, run)
        assert state["type"] == "COMPLETED", state["message"]
        assert (datasets / "flowing/v1/sst.icechunk").read_text() == "56 False 2"
        with server.client() as client:
            asked = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200}
            said = [line["message"] for line in client.request("POST", "/logs/filter", asked)]
        assert sum("doubling" in line for line in said) == 8

    @pytest.mark.slow
    def test_a_cancelled_run_takes_its_recipe_along(
        self, command: Command, server: prefect.Server, worker: prefect.Worker, bakeries: Path, tmp_path: Path
    ) -> None:
        recipe = STUBBORN.replace("Path(target)", f"Path({str(tmp_path / 'pids')!r})")
        run = self.register(command, feedstocks.make(tmp_path / "server", "stubborn", recipe=recipe), server, bakeries)
        started = pids(tmp_path / "pids")
        with server.client() as client:
            client.request("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
        wait_for(lambda: all(gone(pid) for pid in started))
        wait_for(lambda: self.state(server, run)["type"] == "CANCELLED")


def test_a_run_whose_commit_is_gone_says_so_in_gits_own_words(
    feedstock: Feedstock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a branch was rewritten, while the run waited for a worker."""
    clone, commit = tmp_path / "clone", "1" * 40
    feedstocks.git(tmp_path, "clone", "--quiet", feedstock.folder.as_uri(), str(clone))
    monkeypatch.chdir(clone)
    with disable_run_logger(), pytest.raises(Refused, match=f"git fetch .*not our ref {commit}") as caught:
        bake_recipe.fn("sst", str(tmp_path / "sst.zarr"), feedstock.repository, commit, "v1.0.0")
    assert [finding.id for finding in caught.value.findings] == ["git-failed"]


MAKING = """
import sys
from pathlib import Path
from feedstock_forge.bake.locks import scratch

for _ in range(300):
    with scratch(Path(sys.argv[1]), "run-") as folder:
        (folder / "file").write_text("mine")
"""


def test_no_run_takes_the_folder_of_another_for_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / "run-killed").mkdir()
    command = [sys.executable, "-c", MAKING, str(tmp_path)]
    makers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [maker.communicate()[1] for maker in makers] == [""] * 4
    assert list(tmp_path.iterdir()) == []
