"""Registering against a real Prefect server: exact, repeatable, resumable, and deaf to what a plan claims."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Command
from feedstock_forge import certificates, plan, register, trigger
from feedstock_forge.bakery import Bakeries
from feedstock_forge.findings import Refused
from feedstock_forge.prefect import Prefect
from support import feedstocks, proxy
from support import prefect as support
from support.feedstocks import Feedstock

COUNT = iter(range(1000))
MANY = """
def one(target, mode="complete", prune=False): ...
many = {f"year-{year}": one for year in range(%d)}
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Feedstock:
    """A feedstock of a name that the server has not seen."""
    return named(tmp_path / "server", 'id: sst, object: "recipe:sst"')


def named(server: Path, recipes: str, **rest: Any) -> Feedstock:
    number = next(COUNT)
    made = feedstocks.make(server, f"register-{number}", recipes=f"[{{{recipes}}}]", **rest)
    return Feedstock(made.server, made.repository, 5000 + number)


@pytest.fixture
def queue(server: support.Server, idle_bakeries: Path) -> None:
    """The pool and the queue of the local bakery, with nobody listening."""
    with server.client() as client:
        client.create_work_pool("idle", "process", "for tests")
        client.create_work_queue("idle", "dev")


def wanted(feedstock: Feedstock, event: Path, idle_bakeries: Path) -> list[register.Deployment]:
    """What a feedstock's event comes to, by the engine itself."""
    found = trigger.read("release", event, feedstock.environment())
    assert isinstance(found, trigger.Trigger)
    made = plan.make(found, feedstock.folder)
    decided = register.decisions(found, made, Bakeries.at(idle_bakeries), datetime.date(2026, 1, 1))
    return register.deployments(found, made, decided)


def state(server: support.Server, feedstock: Feedstock) -> dict[str, Any]:
    """Everything that the server holds of a feedstock: what two ways of registering are compared by."""
    feedstock_id = feedstock.folder.name.removesuffix("-feedstock")
    with server.client() as client:
        rows = client.request(
            "POST", "/deployments/filter", {"deployments": {"tags": {"all_": [f"feedstock:{feedstock_id}"]}}}
        )
        runs = client.request(
            "POST", "/flow_runs/filter", {"flow_runs": {"tags": {"all_": [f"feedstock:{feedstock_id}"]}}}
        )
    kept = ("name", "version", "entrypoint", "parameters", "pull_steps", "work_pool_name", "work_queue_name", "updated")
    return {
        "deployments": [{key: row[key] for key in kept} | {"tags": set(row["tags"])} for row in rows],
        "runs": sorted((run["idempotency_key"], json.dumps(run["parameters"], sort_keys=True)) for run in runs),
    }


def test_a_release_becomes_a_deployment_pinned_to_its_commit_and_one_run(
    server: support.Server, queue: None, idle_bakeries: Path, datasets: Path, fresh: Feedstock, command: Command
) -> None:
    event, output = fresh.release("v1.0.0"), fresh.server / "plan.json"
    options = ["--event-name", "release", "--event", str(event)]
    command("plan", "-C", fresh.folder, *options, "-o", output, env=fresh.environment())
    env = fresh.environment() | server.environment
    done = command("register", output, *options, "--bakeries", idle_bakeries, env=env)
    assert "deployments: 1 created; runs: 1 started" in done.stdout

    feedstock_id = fresh.folder.name.removesuffix("-feedstock")
    with server.client() as client:
        assert f"{feedstock_id}.sst" in client.flows([f"{feedstock_id}.sst"])
    found = state(server, fresh)
    deployment = found["deployments"][0]
    assert deployment["name"] == "local.dev"
    assert deployment["version"] == "v1.0.0"
    assert (deployment["work_pool_name"], deployment["work_queue_name"]) == ("idle", "dev")
    assert "label:dev" in deployment["tags"]
    clone = deployment["pull_steps"][0]["prefect.deployments.steps.git_clone"]
    assert clone["commit_sha"] == fresh.head
    assert clone["repository"] == f"{fresh.server.as_uri()}/{fresh.repository}"
    assert len(found["runs"]) == 1
    parameters = json.loads(found["runs"][0][1])
    assert parameters["target"] == f"{datasets.as_uri()}/{feedstock_id}/v1/sst.icechunk"
    assert (parameters["mode"], parameters["commit"], parameters["version"]) == ("complete", fresh.head, "v1.0.0")


def test_registering_twice_changes_nothing_and_asks_three_times(
    server: support.Server, queue: None, idle_bakeries: Path, fresh: Feedstock
) -> None:
    deployments = wanted(fresh, fresh.release("v1.0.0"), idle_bakeries)
    with proxy.between(server.url) as between, Prefect(between.url) as client:
        first = register.register(client, deployments)
        before, asked = state(server, fresh), len(between.seen)
        second = register.register(client, deployments)
        # Counted once each: Prefect on SQLite answers 503 now and then, and is asked again.
        assert len(set(between.seen[asked:])) == 3
    assert (len(first.created), len(first.started)) == (1, 1)
    assert (second.created, second.updated, second.started) == ([], [], [])
    assert state(server, fresh) == before


def test_a_newer_release_moves_the_deployment_and_an_older_one_does_not_move_it_back(
    server: support.Server, queue: None, idle_bakeries: Path, fresh: Feedstock
) -> None:
    older = wanted(fresh, fresh.release("v1.0.0"), idle_bakeries)
    fresh.commit("More")
    newer = wanted(fresh, fresh.release("v1.1.0"), idle_bakeries)
    with server.client() as client:
        register.register(client, older)
        assert len(register.register(client, newer).updated) == 1
        again = register.register(client, older)
    assert (again.updated, again.started) == ([], [])
    found = state(server, fresh)
    assert found["deployments"][0]["version"] == "v1.1.0"
    assert len(found["runs"]) == 2


def test_a_dict_of_recipes_is_one_deployment_whose_runs_are_created_in_bulk(
    server: support.Server, queue: None, idle_bakeries: Path, tmp_path: Path
) -> None:
    feedstock = named(tmp_path / "server", 'dict_object: "recipe:many"', recipe=MANY % 250)
    deployments = wanted(feedstock, feedstock.release("v1.0.0"), idle_bakeries)
    assert len(deployments) == 1
    with proxy.between(server.url) as between, Prefect(between.url) as client:
        outcome = register.register(client, deployments)
        assert len(outcome.started) == 250
        # A hundred a request; a busy SQLite refuses some, which are sent again.
        assert 3 <= sum("create_flow_run" in request for request in between.seen) <= 8
        asked = len(between.seen)
        assert len(register.register(client, deployments).known) == 250
        assert len(set(between.seen[asked:])) == 3
    with server.client() as client:
        keys = [run.key for run in deployments[0].runs]
        runs = list(client.runs(keys))
    assert {run["parameters"]["recipe"] for run in runs} == {f"year-{year}" for year in range(250)}
    assert len(runs) == 250


def test_a_dry_run_reads_and_writes_nothing(
    server: support.Server, queue: None, idle_bakeries: Path, fresh: Feedstock
) -> None:
    deployments = wanted(fresh, fresh.release("v1.0.0"), idle_bakeries)
    with server.client() as client:
        outcome = register.register(client, deployments, dry_run=True)
        assert (len(outcome.created), len(outcome.started)) == (1, 1)
        assert client.flows([deployments[0].flow]) == {}
    assert state(server, fresh) == {"deployments": [], "runs": []}


@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.slow), "after"])
def test_killed_between_any_two_requests_and_run_again_it_converges(
    when: str, server: support.Server, queue: None, idle_bakeries: Path, fresh: Feedstock, command: Command
) -> None:
    event, output = fresh.release("v1.0.0"), fresh.server / "plan.json"
    options = ["--event-name", "release", "--event", str(event)]
    command("plan", "-C", fresh.folder, *options, "-o", output, env=fresh.environment())
    arguments = [
        sys.executable,
        "-m",
        "feedstock_forge",
        "register",
        str(output),
        *options,
        "--bakeries",
        str(idle_bakeries),
    ]
    killed = 0
    with proxy.between(server.url) as between:
        env = support.quiet(fresh.server) | fresh.environment() | {"PREFECT_API_URL": between.url}
        while True:
            between.seen.clear()
            process = subprocess.Popen(arguments, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

            def kill(number: int, process: subprocess.Popen[bytes] = process, at: int = killed + 1) -> None:
                if number == at:
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait(10)

            setattr(between, when, kill)
            said = process.communicate(timeout=60)[1]
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, said
            killed += 1
    assert killed >= 3
    found = state(server, fresh)
    assert len(found["deployments"]) == 1
    assert found["deployments"][0]["version"] == "v1.0.0"
    assert len(found["runs"]) == 1


@pytest.mark.parametrize("fault", proxy.FAULTS)
def test_a_fault_at_any_request_changes_nothing_in_the_end(
    fault: str, server: support.Server, queue: None, idle_bakeries: Path, fresh: Feedstock
) -> None:
    found = trigger.read("release", fresh.release("v1.0.0"), fresh.environment())
    assert isinstance(found, trigger.Trigger)
    made = plan.make(found, fresh.folder)
    database = Bakeries.at(idle_bakeries)
    with proxy.between(server.url) as between, Prefect(between.url, patience=30) as client:
        hurt = 0
        while True:
            name = f"{fault.replace(' ', '-')}-{hurt}"
            at = dataclasses.replace(found, repository=f"pangeo-forge/{name}-feedstock", repository_id=9000 + hurt)
            what = made.model_copy(update={"feedstock": name, "repository": at.repository})
            decided = register.decisions(at, what, database, datetime.date(2026, 1, 1))
            between.seen.clear()
            between.fault = lambda number, at=hurt + 1: fault if number == at else None  # type: ignore[misc]
            outcome = register.register(client, register.deployments(at, what, decided))
            between.fault = lambda number: None
            stands = state(server, Feedstock(fresh.server, at.repository))
            assert len(outcome.started) == len(stands["runs"]) == len(stands["deployments"]) == 1
            if len(between.seen) <= hurt:
                break
            hurt += 1
    assert hurt >= 6


def test_the_end_of_patience_names_what_was_done_and_what_was_not(
    server: support.Server, queue: None, idle_bakeries: Path, fresh: Feedstock
) -> None:
    deployments = wanted(fresh, fresh.release("v1.0.0"), idle_bakeries)
    with proxy.between(server.url) as between, Prefect(between.url, patience=0.5) as client:
        between.fault = lambda number: "503" if "create_flow_run" in between.seen[-1] else None
        with pytest.raises(Refused) as caught:
            register.register(client, deployments)
    first, second = caught.value.findings
    assert (first.id, second.id) == ("prefect-unreachable", "register-stopped")
    assert f"done: {deployments[0].full_name}; not done: nothing" in second.message
    assert f"not started: {deployments[0].runs[0].name}" in second.message


def test_a_server_with_basic_auth_takes_the_auth_string_and_refuses_the_rest(
    tmp_path: Path, idle_bakeries: Path, fresh: Feedstock, command: Command
) -> None:
    event, output = fresh.release("v1.0.0"), fresh.server / "plan.json"
    options = ["--event-name", "release", "--event", str(event)]
    command("plan", "-C", fresh.folder, *options, "-o", output, env=fresh.environment())
    with support.serve(tmp_path / "locked", auth="forge:hunter2") as locked:
        with locked.client() as client:
            client.create_work_pool("idle", "process", "for tests")
            client.create_work_queue("idle", "dev")
        env = fresh.environment() | {"PREFECT_API_URL": locked.url}
        arguments = ["register", str(output), *options, "--bakeries", str(idle_bakeries)]
        for wrong, hint in [
            ({}, "no credentials"),
            ({"PREFECT_API_AUTH_STRING": "forge:wrong-secret"}, "renew PREFECT_API_AUTH_STRING"),
            ({"PREFECT_API_KEY": "pnu_key", "PREFECT_API_AUTH_STRING": "forge:hunter2"}, "unset PREFECT_API_KEY"),
        ]:
            done = command(*arguments, env=env | wrong, code=1)
            assert "[prefect-unauthorized]" in done.stderr
            assert hint in done.stderr
            assert not any(secret in done.stderr + done.stdout for secret in ("hunter2", "wrong-secret", "pnu_key"))
        done = command(*arguments, env=env | {"PREFECT_API_AUTH_STRING": "forge:hunter2"})
        assert "1 created; runs: 1 started" in done.stdout


def test_a_bakery_that_nobody_serves_is_named_with_the_command_that_serves_it(
    server: support.Server, idle_bakeries: Path, fresh: Feedstock, tmp_path: Path
) -> None:
    folder = tmp_path / "bakeries"
    (folder / "elsewhere").mkdir(parents=True)
    described = (idle_bakeries / "local/bakery.yaml").read_text().replace("name: idle", "name: nobodys-pool")
    (folder / "elsewhere/bakery.yaml").write_text(described)
    meta = (fresh.folder / "feedstock/meta.yaml").read_text().replace("id: local", "id: elsewhere")
    fresh.write("feedstock/meta.yaml", meta)
    fresh.commit()
    deployments = wanted(fresh, fresh.release("v1.0.0"), folder)
    with server.client() as client, pytest.raises(Refused) as caught:
        register.register(client, deployments)
    assert caught.value.findings[0].id == "pool-missing"
    assert caught.value.findings[0].fix == "feedstock bakery serve elsewhere --label dev"


def test_registering_imports_nothing_heavy_and_nothing_of_the_feedstock() -> None:
    program = str(Path(sys.executable).with_name("feedstock"))
    command = [sys.executable, "-X", "importtime", program, "register", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"feedstock_forge.register", "httpx"} <= imported
    assert not {"prefect", "xarray", "copier", "dask", "icechunk", "rich", "asyncio"} & imported


def test_an_https_server_is_held_against_the_authorities_and_for_any_other_nobody_is_trusted() -> None:
    for url, trusts in [("https://api.prefect.cloud/api", True), ("HTTPS://x/api", True), ("http://x/api", False)]:
        context = certificates.for_url(url)
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname
        assert bool(context.get_ca_certs()) == trusts
    assert certificates.for_url("https://x") is certificates.authorities()


# What follows needs no server: it is refused before anything is asked.


def planned(command: Command, feedstock: Feedstock) -> tuple[Path, list[str]]:
    event, output = feedstock.release("v1.0.0"), feedstock.server / "plan.json"
    options = ["--event-name", "release", "--event", str(event)]
    command("plan", "-C", feedstock.folder, *options, "-o", output, env=feedstock.environment())
    return output, options


@pytest.mark.parametrize(
    "claim",
    [
        {"commit": "b" * 40},
        {"repository": "pangeo-forge/other-feedstock"},
        {"version": "v9"},
        {"event": "merge"},
        {"feedstock": "other"},
        {"mode": "update"},
    ],
)
def test_a_plan_that_claims_another_identity_is_refused(
    claim: dict[str, str], idle_bakeries: Path, fresh: Feedstock, command: Command
) -> None:
    output, options = planned(command, fresh)
    output.write_text(json.dumps(json.loads(output.read_text()) | claim))
    env = fresh.environment() | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = command("register", output, *options, "--bakeries", idle_bakeries, env=env, code=1)
    assert "[plan-other-trigger]" in done.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"entrypoint": "os:system"},
        {"recipes": []},
        {"recipes": [{"id": "../x"}]},
        {"recipes": [{"id": "a"}, {"id": "A"}]},
        {"dict_object": "../recipe"},
        {"bakeries": "local"},
        {"stores": {"sst": "parquet"}},
    ],
)
def test_a_plan_that_is_not_exactly_one_is_refused(change: dict[str, Any], fresh: Feedstock, command: Command) -> None:
    output, options = planned(command, fresh)
    output.write_text(json.dumps(json.loads(output.read_text()) | change))
    done = command("register", output, *options, env=fresh.environment(), code=1)
    assert "[plan-unreadable]" in done.stderr


def test_an_unreachable_server_is_said_within_seconds(idle_bakeries: Path, fresh: Feedstock, command: Command) -> None:
    output, options = planned(command, fresh)
    url = f"http://127.0.0.1:{support.free_port()}/api"
    env = fresh.environment() | {"PREFECT_API_URL": url}
    arguments = ["register", output, *options, "--bakeries", idle_bakeries, "--patience", "1"]
    assert "[prefect-unreachable]" in command(*arguments, env=env, code=1).stderr
    env["PREFECT_API_URL"] = "prefect.example.org"
    assert "[prefect-url-missing]" in command(*arguments, env=env, code=1).stderr


def test_an_unknown_bakery_or_label_is_refused_with_the_nearest_name(
    idle_bakeries: Path, fresh: Feedstock, command: Command
) -> None:
    meta = (fresh.folder / "feedstock/meta.yaml").read_text()
    for wrong, identity, hint in [
        ("id: locl, label: dev", "bakery-unknown", "did you mean `local`?"),
        ("id: local, label: dve", "label-unknown", "did you mean `dev`?"),
    ]:
        fresh.write("feedstock/meta.yaml", meta.replace("id: local, label: dev", wrong))
        fresh.commit()
        event, output = fresh.merge(), fresh.server / "plan.json"
        options = ["--event-name", "push", "--event", str(event)]
        command("plan", "-C", fresh.folder, *options, "-o", output, env=fresh.environment())
        done = command("register", output, *options, "--bakeries", idle_bakeries, env=fresh.environment(), code=1)
        assert f"[{identity}]" in done.stderr
        assert hint in done.stderr
