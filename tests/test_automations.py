"""What Prefect does by itself: it tells GitHub that a run has ended, and ends runs that were lost with their worker."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from conftest import Command
from feedstock_forge import automations
from feedstock_forge.prefect import Prefect
from support import feedstocks, github, prefect
from support.feedstocks import Feedstock

TOKEN = "token-of-prefect[bot]"


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.25)


def end_a_run(client: Prefect, repository_id: int, state: str = "FAILED") -> str:
    """Let a run of a repository end; returns its id."""
    key = str(uuid.uuid4())
    deployment = client.create_deployment({"name": "d", "flow_id": client.create_flow("told"), "entrypoint": "a.b"})
    client.create_runs(deployment, [{"name": "r", "idempotency_key": key, "tags": [f"repository:{repository_id}"]}])
    (row,) = client.runs([key])
    client.request("POST", f"/flow_runs/{row['id']}/set_state", {"state": {"type": state}, "force": True})
    return str(row["id"])


def test_an_ended_run_reaches_its_repository_with_a_token_that_nobody_sees(
    server: prefect.Server, tmp_path: Path
) -> None:
    with github.serve(tmp_path / "server") as hub, server.client() as client:
        for number, name in ((70_001, "told"), (70_002, "other")):
            hub.add(f"pangeo-forge/{name}-feedstock", number)
        hub.person("prefect[bot]", 5)
        automations.keep_token(client, TOKEN)
        names = {70_001: "pangeo-forge/told-feedstock", 70_002: "pangeo-forge/other-feedstock"}
        install = [automations.tell_github(client, name, number, hub.url) for number, name in names.items()]
        assert install == ["created", "created"]
        again = [automations.tell_github(client, name, number, hub.url) for number, name in names.items()]
        assert again == ["unchanged", "unchanged"]
        shown = json.dumps([client.automations(f"feedstock-{number}") for number in names])
        assert TOKEN not in shown
        time.sleep(2)  # the server reads its automations now and then
        run = end_a_run(client, 70_001)
        until(lambda: hub.dispatches)
        payload = {"event_type": "feedstock-run-ended", "client_payload": {"run": f"prefect.flow-run.{run}"}}
        assert hub.dispatches == [("pangeo-forge/told-feedstock", payload)]

        hub.repositories["pangeo-forge/renamed-feedstock"] = 70_001
        automations.keep_token(client, TOKEN)
        assert automations.tell_github(client, "pangeo-forge/renamed-feedstock", 70_001, hub.url) == "updated"
        time.sleep(2)
        end_a_run(client, 70_001, "COMPLETED")
        until(lambda: len(hub.dispatches) == 2)
        assert hub.dispatches[1][0] == "pangeo-forge/renamed-feedstock"
    assert hub.problems == []


def test_who_switched_an_automation_off_finds_it_off_and_an_edited_one_is_mended(server: prefect.Server) -> None:
    bakery = f"b{uuid.uuid4().hex[:6]}"
    with server.client() as client:
        assert automations.end_lost_runs(client, bakery) == "created"
        assert automations.end_lost_runs(client, bakery) == "unchanged"
        (row,) = client.automations(f"feedstock-lost-{bakery}")
        client.request("PATCH", f"/automations/{row['id']}", {"enabled": False})
        assert automations.end_lost_runs(client, bakery) == "unchanged"
        assert automations.end_lost_runs(client, bakery, 600) == "updated"
        (row,) = client.automations(f"feedstock-lost-{bakery}")
        assert (row["enabled"], row["trigger"]["within"]) == (False, 600)


def test_serving_a_bakery_installs_them_and_keeps_the_token_from_the_worker(
    server: prefect.Server, prefect_itself: prefect.Server, bakeries: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bakeries/served"
    folder.mkdir(parents=True)
    text = (bakeries / "local/bakery.yaml").read_text(encoding="utf-8").replace("name: local", "name: served")
    (folder / "bakery.yaml").write_text(text, encoding="utf-8")
    grant = "repository: pangeo-forge/granted-feedstock\nrepository_id: 70003\nlabel: dev\n"
    (folder / "grants").mkdir()
    (folder / "grants/granted.yaml").write_text(grant, encoding="utf-8")
    extra = {"FEEDSTOCK_DISPATCH_TOKEN": TOKEN}
    with server.client() as client, prefect.work(prefect_itself, tmp_path / "bakeries", "served", **extra) as worker:
        until(lambda: "served" in worker.log.read_text() and "GitHub is told" in worker.log.read_text())
        assert len(client.automations("feedstock-70003")) == 1
        assert len(client.automations("feedstock-lost-served")) == 1
        until(lambda: psutil.Process(worker.pid).cmdline()[1:4] == ["-m", "prefect", "worker"])
        environment = psutil.Process(worker.pid).environ()
        assert TOKEN not in environment.values()
        assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


SLEEPER = """
import time

def sst(target, mode="complete", prune=False):
    '''Bake for ever.'''
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_run_that_is_lost_with_its_worker_crashes_and_says_so(
    server: prefect.Server, prefect_itself: prefect.Server, bakeries: Path, command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "bakeries/lost"
    folder.mkdir(parents=True)
    text = (bakeries / "local/bakery.yaml").read_text(encoding="utf-8").replace("name: local", "name: lost")
    (folder / "bakery.yaml").write_text(text, encoding="utf-8")
    feedstock = feedstocks.make(tmp_path / "server", "lost", recipe=SLEEPER)
    meta = feedstock.folder / "feedstock/meta.yaml"
    meta.write_text(meta.read_text(encoding="utf-8").replace("id: local", "id: lost"), encoding="utf-8")
    feedstock.commit()
    with server.client() as client, prefect.work(prefect_itself, folder.parent, "lost") as worker:
        until(lambda: client.work_pool("lost") and "dev" in client.work_queues("lost"))
        assert automations.end_lost_runs(client, "lost", after=45) == "updated"
        run = start(command, feedstock, server, folder.parent)
        until(lambda: state(client, run) == "RUNNING")
        until(lambda: heartbeats(client, run), 90)
        for member in [*psutil.Process(worker.pid).children(recursive=True), psutil.Process(worker.pid)]:
            os.kill(member.pid, signal.SIGKILL)
        until(lambda: state(client, run) == "CRASHED", 150)
        (row,) = client.runs_by_id([run])
    assert "lost with its worker" in row["state"]["message"]


def start(command: Command, feedstock: Feedstock, server: prefect.Server, bakeries: Path) -> str:
    options = ["--event-name", "release", "--event", str(feedstock.release("v1.0.0"))]
    plan, job = feedstock.server / "plan.json", feedstock.environment()
    command("plan", "-C", feedstock.folder, *options, "-o", plan, env=job)
    command("register", plan, *options, "--bakeries", bakeries, env=job | server.environment)
    with server.client() as client:
        (row,) = client.runs_tagged(["bakery:lost"])
    return str(row["id"])


def state(client: Prefect, run: str) -> str:
    (row,) = client.runs_by_id([run])
    return str(row["state_type"])


def heartbeats(client: Prefect, run: str) -> int:
    wanted = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{run}"]}}
    return int(client.request("POST", "/events/filter", {"filter": wanted})["total"])
