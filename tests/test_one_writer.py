"""Two runs that would write one dataset never run at once, whichever labels and workers they come from."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from pathlib import Path

import pytest

from conftest import Command
from feedstock_forge.one_writer import limit_name
from support import feedstocks, prefect
from support.feedstocks import Feedstock

pytestmark = pytest.mark.slow

RECIPE = """
import json, os, time
from pathlib import Path

def sst(target, mode="complete", prune=False):
    '''Write down when it began and ended.'''
    path = Path(target.removeprefix("file://"))
    path.mkdir(parents=True, exist_ok=True)
    began = time.time()
    time.sleep(3)
    (path / f"{os.getpid()}.json").write_text(json.dumps([began, time.time()]))
"""


def make(tmp_path: Path, bakeries: Path, name: str, pool: str) -> tuple[Feedstock, Path]:
    """A feedstock that asks for two labels of a bakery with the same target; and that bakery."""
    folder = tmp_path / "bakeries"
    shutil.copytree(bakeries, folder)
    described = folder / "local/bakery.yaml"
    text = described.read_text(encoding="utf-8")
    changed = text.replace("name: local", f"name: {pool}").replace("labels:\n", "labels:\n  other: {grants: open}\n")
    described.write_text(changed, encoding="utf-8")
    feedstock = feedstocks.make(tmp_path / "server", name, recipe=RECIPE)
    meta = (feedstock.folder / "feedstock/meta.yaml").read_text(encoding="utf-8")
    feedstock.write("feedstock/meta.yaml", meta + "  - {id: local, label: other, on: [release]}\n")
    feedstock.commit()
    return feedstock, folder


def start(command: Command, feedstock: Feedstock, server: prefect.Server, bakeries: Path) -> tuple[Path, list[str]]:
    """Plan and register a release, with two runs; returns the plan and the options that name the event."""
    options = ["--event-name", "release", "--event", str(feedstock.release("v1.0.0"))]
    plan, job = feedstock.server / "plan.json", feedstock.environment()
    command("plan", "-C", feedstock.folder, *options, "-o", plan, env=job)
    done = command("register", plan, *options, "--bakeries", bakeries, env=job | server.environment)
    assert "runs: 2 started" in done.stdout
    return plan, options


def test_two_labels_with_a_worker_each_write_one_dataset_one_after_the_other(
    command: Command, server: prefect.Server, prefect_itself: prefect.Server, bakeries: Path, tmp_path: Path
) -> None:
    feedstock, folder = make(tmp_path, bakeries, "turns", "turns")
    with (
        prefect.work(prefect_itself, folder, "local", "dev") as one,
        prefect.work(prefect_itself, folder, "local", "other") as two,
    ):
        with server.client() as client:
            wait_for_queues(client, "turns", {"dev", "other"})
        plan, options = start(command, feedstock, server, folder)
        env = feedstock.environment() | server.environment
        command("watch", plan, *options, "--timeout", "100", env=env)
        assert one.pid != two.pid
    written = bakeries.parent / "datasets/turns/v1/sst.icechunk"
    (began, ended), (begun_after, _) = sorted(json.loads(path.read_text()) for path in written.glob("*.json"))
    assert began < ended <= begun_after


def wait_for_queues(client: prefect.Prefect, pool: str, names: set[str]) -> None:
    """Wait until the workers have made what they listen to."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if client.work_pool(pool) and names <= set(client.work_queues(pool)):
            return
        time.sleep(0.5)
    raise AssertionError(f"no worker made the queues of {pool}")


def test_a_dataset_whose_writer_died_with_its_machine_is_free_again_when_its_lease_ends(
    command: Command, server: prefect.Server, prefect_itself: prefect.Server, bakeries: Path, tmp_path: Path
) -> None:
    feedstock, folder = make(tmp_path, bakeries, "widow", "widow")
    name = limit_name((bakeries.parent / "datasets/widow/v1/sst.icechunk").as_uri())
    dead = {"type": "flow_run", "id": str(uuid.uuid4())}
    lease = {"names": [name], "slots": 1, "mode": "concurrency", "lease_duration": 60, "holder": dead}
    with server.client() as client:
        client.request("POST", "/v2/concurrency_limits/", {"name": name, "limit": 1})
        client.request("POST", "/v2/concurrency_limits/increment-with-lease", lease)
    with prefect.work(prefect_itself, folder):
        with server.client() as client:
            wait_for_queues(client, "widow", {"dev", "other"})
        plan, options = start(command, feedstock, server, folder)
        env = feedstock.environment() | server.environment
        command("watch", plan, *options, "--timeout", "200", env=env)
        with server.client() as client:
            assert client.request("GET", f"/v2/concurrency_limits/{name}")["active_slots"] == 0
            rows = client.request("POST", "/logs/filter", {"limit": 200})
    assert any("waiting: another run writes" in row["message"] for row in rows)
