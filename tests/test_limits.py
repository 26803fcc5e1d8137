"""What a label gives to a run is all that the run takes, wherever it runs; and one that wants more is told so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import prefect as installed
import pytest

from feedstock_forge import limits, recipe_process
from feedstock_forge.bake import Provenance
from feedstock_forge.bakery import Bakery, Limits
from feedstock_forge.findings import Finding, Refused
from feedstock_forge.job_variables import job_variables
from feedstock_forge.recipe_process import Job
from support.feedstocks import Feedstock

HEAD = """
import os, subprocess, sys, time
from pathlib import Path

def sst(target, mode="complete", prune=False):
"""


def run(feedstock: Feedstock, body: str, **allowed: object) -> list[str]:
    feedstock.write("feedstock/recipe.py", HEAD + "".join(f"    {line}\n" for line in body.splitlines()))
    within = {"allowed": Limits.model_validate(allowed), "label": "ldeo.aws.dev"}
    job = Job(str(feedstock.folder), "sst", "", "complete", False, Provenance("sst", "sst"), **within)
    lines: list[str] = []
    recipe_process.run(Path(sys.executable), job, lines.append)
    return lines


def met(feedstock: Feedstock, body: str, **allowed: object) -> Finding:
    with pytest.raises(Refused) as caught:
        run(feedstock, body, **allowed)
    (finding,) = caught.value.findings
    assert finding.fix in str(caught.value), "what Prefect shows of the run says what to do"
    return finding


def test_a_run_within_its_limits_ends_as_any_other_and_says_what_it_took(feedstock: Feedstock) -> None:
    lines = run(feedstock, "held = bytearray(200 << 20)\ntime.sleep(1)", memory="1 GiB", cpu=1.0, runtime="1 min")
    assert lines[-1].startswith("the recipe used 2"), lines
    assert "MiB of memory at most" in lines[-1]


def test_memory_is_that_of_all_processes_of_the_run(feedstock: Feedstock) -> None:
    child = "held = bytearray(150 << 20); import time; time.sleep(60)"
    finding = met(
        feedstock,
        f"for _ in range(2):\n    subprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(60)",
        memory="250 MiB",
    )
    assert finding.id == "limit-memory"
    assert "not the 250 MiB that the label ldeo.aws.dev gives it" in finding.message
    assert "`feedstock label request ldeo.aws dev --resources '500 MiB'`" in finding.fix


def test_memory_of_a_daemon_counts_too(feedstock: Feedstock) -> None:
    finding = met(
        feedstock,
        """if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        held = bytearray(300 << 20)
        time.sleep(60)
    os._exit(0)
os.wait()
time.sleep(60)""",
        memory="200 MiB",
    )
    assert finding.id == "limit-memory"


def test_memory_that_processes_share_and_files_that_they_map_count_once_or_not_at_all(
    feedstock: Feedstock, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(bytes(300 << 20))
    run(
        feedstock,
        f"""import mmap
held = bytearray(150 << 20)
for _ in range(2):
    if os.fork() == 0:
        sum(held[::4096])
        time.sleep(1.5)
        os._exit(0)
with open({str(tmp_path / "large")!r}, "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    sum(mapped[::4096])
os.wait(), os.wait()""",
        memory="300 MiB",
    )


def test_a_run_that_takes_too_long_is_ended(feedstock: Feedstock) -> None:
    finding = met(feedstock, "time.sleep(600)", runtime="2 s")
    assert finding.id == "limit-runtime"
    assert "longer than the 2 s" in finding.message
    assert "ldeo.aws's operators" in finding.fix


def test_a_run_keeps_to_its_processors_and_starts_no_more_threads(feedstock: Feedstock) -> None:
    said = "print(len(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'], os.environ['DASK_NUM_WORKERS'])"
    assert run(feedstock, said, cpu=0.5)[0] == "1 1 1"


def test_a_run_that_leaves_its_processors_is_over_its_limit() -> None:
    allowed = Limits(cpu=1.0)
    assert limits.over(allowed, limits.Use(cpu=1000, runtime=990), "ldeo.aws.dev") is None
    finding = limits.over(allowed, limits.Use(cpu=3000, runtime=1000), "ldeo.aws.dev")
    assert finding is not None
    assert (finding.id, "3.0 processors" in finding.message) == ("limit-cpu", True)


FULL = Limits.model_validate({"memory": "8 GiB", "cpu": 1.5, "runtime": "2 h"})
WORKERS = json.loads(
    (Path(installed.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json").read_text(
        encoding="utf-8"
    )
)
TYPES = {
    kind: worker["default_base_job_configuration"]["variables"]
    for collection in WORKERS.values()
    for kind, worker in collection.items()
}


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_the_job_variables_are_those_that_prefects_workers_know(kind: str) -> None:
    pool = {"name": "pool", "type": kind}
    if kind != "process":
        pool["image"] = "ghcr.io/org/{feedstock}:{version}"
    made = job_variables(bakery(pool), "ldeo.aws.dev", FULL, "sst", "v1.0+a/b")
    assert set(made) <= set(TYPES[kind]["properties"]), "an unknown one would be ignored"
    jsonschema.validate(made, {**TYPES[kind], "required": []})
    assert made.get("image") == (None if kind == "process" else "ghcr.io/org/sst:v1.0-a-b")
    assert Limits.model_validate_json(made["env"]["FEEDSTOCK_LIMITS"]) == FULL
    sized = [name for name in made if name not in ("env", "image")]
    assert sized or kind == "process"


def test_an_unlimited_run_is_given_no_size() -> None:
    for kind in TYPES:
        made = job_variables(bakery({"name": "pool", "type": kind}), "a.b", Limits(), "sst", "v1")
        assert made == {"env": {"FEEDSTOCK_LABEL": "a.b"}}


def bakery(pool: dict[str, str]) -> Bakery:
    return Bakery.model_validate(
        {
            "description": "a bakery",
            "operators": [{"github": "ada"}],
            "work_pool": pool,
            "labels": {"dev": {}},
            "targets": {"default": {"url": "s3://bucket"}},
        }
    )
