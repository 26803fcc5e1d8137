"""A service that misbehaves all the time: whatever it does, registering ends where it would have ended."""

from __future__ import annotations

import dataclasses
import datetime
import random
from pathlib import Path

import pytest

from feedstock_forge import plan, register, trigger
from feedstock_forge.bakery import Bakeries
from feedstock_forge.findings import Refused
from feedstock_forge.prefect import Prefect
from support import feedstocks, prefect, proxy

pytestmark = pytest.mark.slow

RECIPES = """
def one(target, mode="complete", prune=False): ...
many = {f"year-{year}": one for year in range(150)}
"""


@pytest.mark.parametrize("seed", range(12))
def test_registering_converges_through_any_faults(
    seed: int, server: prefect.Server, idle_bakeries: Path, tmp_path: Path
) -> None:
    rng = random.Random(seed)  # noqa: S311 - chance, not secrecy
    made = feedstocks.make(
        tmp_path / "server", f"faults-{seed}", recipes='{dict_object: "recipe:many"}', recipe=RECIPES
    )
    feedstock = dataclasses.replace(made, repository_id=70_000 + seed)
    found = trigger.read("release", feedstock.release("v1.0.0"), feedstock.environment())
    assert isinstance(found, trigger.Trigger)
    planned = plan.make(found, feedstock.folder)
    decided = register.decisions(found, planned, Bakeries.at(idle_bakeries), datetime.date(2026, 1, 1))
    wanted = register.deployments(found, planned, decided)
    with server.client() as client:
        client.create_work_pool("idle", "process", "for tests")
        client.create_work_queue("idle", "dev")
    with proxy.between(server.url) as between:
        between.fault = lambda number: rng.choice(proxy.FAULTS) if rng.random() < 0.4 else None
        # A person re-runs a job that lost its patience.
        for _ in range(10):
            with Prefect(between.url, patience=5) as client:
                try:
                    register.register(client, wanted)
                except Refused:
                    continue
                break
    with server.client() as client:
        assert len(list(client.deployments_tagged(register.feedstock_tag(wanted[0].feedstock)))) == 1
        runs = list(client.runs([run.key for run in wanted[0].runs]))
    assert sorted(run["idempotency_key"] for run in runs) == sorted(run.key for run in wanted[0].runs)
