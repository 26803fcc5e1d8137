"""Engines: an operator names what to compute with, and a recipe written for a laptop computes with it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
import yaml

from demo import provider
from feedstock_forge import engines, recipe_process
from feedstock_forge.bake import Provenance
from feedstock_forge.bakery import Bakeries, Engine, Limits
from feedstock_forge.findings import Refused, text
from feedstock_forge.job_variables import job_variables
from feedstock_forge.labels import grants
from feedstock_forge.recipe_process import Job
from support.feedstocks import Feedstock
from test_limits import bakery

TWO_WORKERS = Engine.model_validate(
    {
        "dask": {
            "cluster": "distributed.LocalCluster",
            "options": {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"},
        }
    }
)


def described(tmp_path: Path, engine: Any) -> Path:
    """A bakery database with one bakery, which has this engine."""
    folder = tmp_path / "bakeries/ldeo.aws"
    folder.mkdir(parents=True)
    whole = {
        "description": "Kubernetes at LDEO",
        "operators": [{"github": "ada"}],
        "work_pool": {"name": "ldeo", "type": "kubernetes"},
        "labels": {"dev": {"grants": "open"}},
        "targets": {"default": {"url": "s3://bucket"}},
        "engine": engine,
    }
    (folder / "bakery.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
    return folder.parent


def kube(**options: Any) -> Any:
    adapt = {"minimum": 1, "maximum": 50}
    return {"dask": {"cluster": "dask_kubernetes.operator.KubeCluster", "options": options, "adapt": adapt}}


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (kube(image="ghcr.io/dask/dask", namespace="dask"), ""),
        (kube(imgae="ghcr.io/dask/dask"), "[engine-option-unknown] dask_kubernetes.operator.KubeCluster"),
        (kube(imgae="ghcr.io/dask/dask"), "did you mean `image`?"),
        (
            {"dask": {"cluster": "dask_cloudprovider.aws.FargateCluster", "options": {"worker_memory": 4}}},
            "`worker_mem`",
        ),
        ({"dask": {"cluster": "distributed.SSHCluster", "options": {"host": ["a", "b"]}}}, "did you mean `hosts`?"),
        ({"dask": {"cluster": "dask_kubernetes.KubeCluster"}}, "mean `dask_kubernetes.operator.KubeCluster`?"),
        ({"dask": {"cluster": "our_lab.Cluster"}}, "hint[engine-unchecked]"),
        ({"dask": {"address": "tls://scheduler.example.org:8786"}}, ""),
        ({"dask": {"address": "scheduler:8786"}}, "is not a scheduler's address"),
        ({"dask": {"address": "tcp://a:1", "cluster": "a.B"}}, "name one of them, not both"),
        ({"dask": {"address": "tcp://a:1", "adapt": {"minimum": 1, "maximum": 2}}}, "takes no `options`, `adapt`"),
        ({"dask": {"cluster": "a.B", "adapt": {"minimum": 3, "maximum": 2}}}, "the minimum 3 is above"),
        ({"dask": {"cluster": "os.system('id')"}}, "is not a class"),
        (kube(env={"AWS_REGION": "us-west-2", "TOKEN_FILE": "/run/token"}), ""),
        (kube(env=[{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "lab", "key": "token"}}}]), ""),
        (kube(env={"AWS_SECRET_ACCESS_KEY": "hunter2"}), "`engine.dask.options.env.AWS_SECRET_ACCESS_KEY` holds"),
        (kube(env=[{"name": "DB_PASSWORD", "value": "hunter2"}]), "`engine.dask.options.env.0.value` holds"),
        (kube(worker_command=["worker", "--token=hunter2"]), "`engine.dask.options.worker_command.1` holds"),
        ({"dask": {"cluster": "our_lab.Cluster", "options": {"apiKey": "hunter2"}}}, "error[engine-secret]"),
        ({"dask": {"cluster": "a.B", "requires": ["a @ https://me:hunter2@host/a.whl"]}}, "error[engine-secret]"),
        ({"beam": {"runner": "FlinkRunner", "options": {"s3_secret_access_key": "hunter2"}}}, "error[engine-secret]"),
        ({"dsk": {}}, "did you mean `dask`?"),
        ({"beam": {"runner": "FlinkRunner", "options": {"flink_version": "1.19", "parallelism": 4}}}, ""),
        ({"beam": {"options": {}}}, "`engine.beam.runner` is missing"),
    ],
)
def test_a_bakerys_engine_is_checked_without_its_library(tmp_path: Path, engine: Any, said: str) -> None:
    found = grants.check(Bakeries.at(described(tmp_path, engine)))
    whole = "\n".join(map(text, found))
    assert said in whole
    assert "hunter2" not in whole
    assert bool(said) == bool(found)


@pytest.mark.parametrize("cluster", ["distributed.LocalCluster", "distributed.SSHCluster"])
def test_the_options_are_those_that_the_library_declares(cluster: str) -> None:
    assert engines.known_clusters()[cluster] == engines.options_of(cluster)


@pytest.mark.slow
def test_the_options_of_clouds_are_those_that_their_libraries_declare() -> None:
    from uv import find_uv_bin

    clouds = [name for name in engines.known_clusters() if not name.startswith("distributed.")]
    code = (
        "from feedstock_forge import engines; import sys; "
        "wrong = [name for name in sys.argv[1:] if engines.options_of(name) != engines.known_clusters()[name]]; "
        "sys.exit(f'run python -m feedstock_forge.engines {wrong}' if wrong else 0)"
    )
    libraries = ["dask-kubernetes", "dask-cloudprovider[aws,gcp,azure]"]
    package = Path(engines.__file__).parents[2]
    command = [find_uv_bin(), "run", "--isolated", "--no-project", "--with", str(package)]
    for library in libraries:
        command += ["--with", library]
    subprocess.run([*command, "python", "-c", code, *clouds], check=True)


def test_what_the_engine_needs_is_installed_beside_the_recipes_requirements() -> None:
    assert engines.requirements(Engine()) == []
    assert engines.requirements(TWO_WORKERS) == []
    assert engines.requirements(Engine.model_validate(kube())) == ["dask-kubernetes"]
    pinned = {"dask": {"cluster": "dask_jobqueue.SLURMCluster", "requires": ["dask-jobqueue==0.9.0"]}}
    assert engines.requirements(Engine.model_validate(pinned)) == ["dask-jobqueue==0.9.0"]


def test_the_engine_travels_with_the_deployment() -> None:
    flink = Engine.model_validate({"beam": {"runner": "FlinkRunner", "options": {"parallelism": 4}}})
    described = bakery({"name": "pool", "type": "process"}).model_copy(update={"engine": flink})
    environment = job_variables(described, "ldeo.dev", Limits(), "sst", "v1")["env"]
    assert engines.from_environment(environment) == flink
    assert engines.beam(flink) == {"FEEDSTOCK_BEAM": '{"runner": "FlinkRunner", "options": {"parallelism": 4}}'}
    assert engines.from_environment({}) == Engine()


def run(
    feedstock: Feedstock,
    recipe: str,
    engine: Engine,
    target: Path,
    mode: Literal["complete", "update"] = "complete",
    **allowed: object,
) -> list[str]:
    feedstock.write("feedstock/recipe.py", recipe)
    origin = Provenance("sst", "sst", version="v1.0.0", commit="c" * 40)
    within = Limits.model_validate(allowed)
    job = Job(str(feedstock.folder), "sst", str(target), mode, False, origin, engine, within, "ldeo.aws.dev")
    lines: list[str] = []
    recipe_process.run(Path(sys.executable), job, lines.append)
    return lines


def test_an_xarray_recipe_computes_in_the_processes_of_a_cluster(feedstock: Feedstock, tmp_path: Path) -> None:
    recipe = """
    import os
    from pathlib import Path
    import numpy as np
    import xarray as xr

    def who(block):
        return np.full(block.shape, os.getpid())

    def sst(target, mode="complete", prune=False):
        data = xr.DataArray(np.zeros(8), dims="x").chunk(x=1)
        pids = set(xr.apply_ufunc(who, data, dask="parallelized", output_dtypes=[int]).values)
        Path(target).write_text(" ".join(str(pid) for pid in pids - {os.getpid()}))
    """
    lines = run(feedstock, recipe, TWO_WORKERS, tmp_path / "pids")
    assert "Dask: 2 workers, 2 threads" in lines
    assert not any("Nanny" in line for line in lines)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids), "the cluster ends with the recipe"


@pytest.mark.slow
@pytest.mark.parametrize("store", ["icechunk", "zarr"])
def test_bake_writes_on_the_cluster_what_it_writes_in_threads(feedstock: Feedstock, tmp_path: Path, store: str) -> None:
    recipe = """
    import os
    from pathlib import Path
    from feedstock_forge.bake import bake

    INPUTS = {inputs!r}

    def double(ds):
        (Path({seen!r}) / str(os.getpid())).touch()
        return ds.assign(double=2 * ds.sst)

    def sst(target, mode="complete", prune=False):
        (Path({seen!r}) / str(os.getpid())).touch()
        bake(INPUTS, target, mode=mode, concat_dim="time", chunks={{"time": 10}}, preprocess=double)
    """
    (tmp_path / "seen").mkdir()
    paths = provider.write_inputs(tmp_path, 4, "%Y-%m.nc")
    target = tmp_path / f"ocean.{store}"
    for count, mode in ((3, "complete"), (4, "update")):
        inputs = [str(path) for path in paths[:count]]
        text = textwrap.dedent(recipe).format(inputs=inputs, seen=str(tmp_path / "seen"))
        run(feedstock, text, TWO_WORKERS, target, mode)
        added = [line for line in provider.check(str(target), paths[:count]) if ": variables" not in line]
        assert added == [], "but for the variable that `preprocess` adds"
        with provider.open_dataset(str(target)) as baked:
            assert baked.double.equals(2 * baked.sst)
    assert len(list((tmp_path / "seen").iterdir())) == 2 * 3, "the recipe's process and two workers, twice"


def test_an_adaptive_cluster_grows_with_what_waits_to_be_written(feedstock: Feedstock, tmp_path: Path) -> None:
    recipe = """
    import os
    import time
    from pathlib import Path
    from feedstock_forge.bake import bake

    SEEN = Path({seen!r})
    LOOKED = SEEN.with_name("looked")

    def wait_for_another(ds):
        if not LOOKED.exists():  # the one input is opened once before it is written
            LOOKED.touch()
        else:
            (SEEN / str(os.getpid())).touch()
            while len(list(SEEN.iterdir())) < 2:
                time.sleep(0.1)
        return ds.assign(double=2 * ds.sst)

    def sst(target, mode="complete", prune=False):
        bake([{path!r}], target, concat_dim="time", chunks={{"time": 1}}, preprocess=wait_for_another)
    """
    (tmp_path / "seen").mkdir()
    path = tmp_path / "1981-09.nc"
    provider.month(provider.MONTHS[0]).to_netcdf(path, engine="h5netcdf", unlimited_dims=["time"])
    options = {"n_workers": 0, "threads_per_worker": 1, "dashboard_address": ":0"}
    adapt = {"minimum": 1, "maximum": 2}
    engine = {"dask": {"cluster": "distributed.LocalCluster", "options": options, "adapt": adapt}}
    text = textwrap.dedent(recipe).format(seen=str(tmp_path / "seen"), path=str(path))
    lines = run(feedstock, text, Engine.model_validate(engine), tmp_path / "ocean.icechunk")
    assert "Dask: 1 worker, 1 threads" in lines
    assert len(list((tmp_path / "seen").iterdir())) == 2
    with provider.open_dataset(str(tmp_path / "ocean.icechunk")) as baked:
        assert baked.double.equals(2 * baked.sst)


def elsewhere(workers: int = 1, threads: int = 1, memory: str = "1 GiB", **choices: Any) -> Engine:
    """A cluster as on other machines: its processes know nothing of the one that starts them."""
    options = {
        "n_workers": workers,
        "threads_per_worker": threads,
        "worker_kwargs": {"memory_limit": memory},
        "dashboard_address": ":0",
    }
    cluster = {"cluster": "distributed.deploy.subprocess.SubprocessCluster", "options": options}
    return Engine.model_validate({"dask": cluster | choices})


def test_what_a_recipe_defines_is_known_to_workers_that_have_no_checkout(feedstock: Feedstock, tmp_path: Path) -> None:
    recipe = """
    from pathlib import Path
    import dask
    from distributed import default_client
    import helper

    class Scale:
        class Kept:
            factor = 3

        def __init__(self, kept):
            self.kept = kept

        @staticmethod
        def twice(number):
            return 2 * number

        def __call__(self, number):
            return self.kept.factor * helper.plus_one(number)

    def double(number):
        return Scale.twice(number)

    def sst(target, mode="complete", prune=False):
        client = default_client()
        (lazily,) = dask.compute(dask.delayed(double)(5))
        calls = double, Scale.twice, Scale(Scale.Kept()), helper.plus_one
        found = [client.submit(call, 5).result() for call in calls]
        Path(target).write_text(f"{lazily} {found}")
    """
    feedstock.write("feedstock/helper.py", "def plus_one(number):\n    return number + 1\n")
    run(feedstock, recipe, elsewhere(), tmp_path / "found")
    assert (tmp_path / "found").read_text() == "10 [10, 10, 18, 6]"


@pytest.mark.slow
def test_a_cluster_elsewhere_has_as_many_workers_as_fit_into_the_label(feedstock: Feedstock, tmp_path: Path) -> None:
    recipe = """
    import time
    from pathlib import Path
    from distributed import default_client

    def sst(target, mode="complete", prune=False):
        while len(default_client().cluster.worker_spec) > 1:
            time.sleep(0.1)
        Path(target).touch()
    """
    lines = run(feedstock, recipe, elsewhere(2, 2, "600 MiB"), tmp_path / "fewer", cpu=3, runtime="2 min")
    said = "Dask: at most 1 worker of 2 threads and 600 MiB, since ldeo.aws.dev gives a run 3 cores, 2 min"
    assert said in lines
    assert (tmp_path / "fewer").exists()


def test_a_cluster_elsewhere_grows_no_further_than_the_label(feedstock: Feedstock, tmp_path: Path) -> None:
    recipe = """
    import time
    from pathlib import Path
    from distributed import default_client

    def sst(target, mode="complete", prune=False):
        client = default_client()
        waiting = client.map(lambda number: time.sleep(1), range(200), pure=False)
        end = time.monotonic() + 60
        while len(client.nthreads()) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        most = 0
        for _ in range(30):
            most = max(most, len(client.nthreads()))
            time.sleep(0.1)
        Path(target).write_text(str(most))
    """
    engine = elsewhere(0, 1, "600 MiB", adapt={"minimum": 1, "maximum": 3})
    lines = run(feedstock, recipe, engine, tmp_path / "most", memory="1.5 GiB")
    assert "Dask: at most 2 workers of 1 thread and 600 MiB, since ldeo.aws.dev gives a run 1536 MiB" in lines
    assert (tmp_path / "most").read_text() == "2"


def test_a_cluster_elsewhere_that_holds_more_memory_than_the_label_ends_the_run(
    feedstock: Feedstock, tmp_path: Path
) -> None:
    # A file that is mapped does not count among the run's own processes: only the scheduler tells of these workers.
    recipe = """
    import mmap
    import time
    from distributed import default_client

    def hold(path):
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            sum(mapped[::4096])
            time.sleep(60)

    def sst(target, mode="complete", prune=False):
        default_client().submit(hold, {path!r}).result()
    """
    (tmp_path / "large").write_bytes(bytes(600 << 20))
    engine = elsewhere(1, 1, "0")
    with pytest.raises(Refused) as caught:
        run(feedstock, textwrap.dedent(recipe).format(path=str(tmp_path / "large")), engine, tmp_path, memory="500 MiB")
    (finding,) = caught.value.findings
    assert finding.id == "limit-memory", finding.message
    assert "not the 500 MiB that the label ldeo.aws.dev gives it" in finding.message
    assert "`feedstock label request ldeo.aws dev --resources '1000 MiB'`" in finding.fix


def test_workers_on_the_same_machine_share_what_the_label_gives(feedstock: Feedstock, tmp_path: Path) -> None:
    recipe = """
    from pathlib import Path
    from distributed import default_client

    def sst(target, mode="complete", prune=False):
        workers = default_client().scheduler_info()["workers"].values()
        Path(target).write_text(" ".join(f"{worker['memory_limit'] >> 20}" for worker in workers))
    """
    run(feedstock, recipe, TWO_WORKERS, tmp_path / "shares", memory="2 GiB")
    assert (tmp_path / "shares").read_text() == "1024 1024"


FLOW = """
import os
from pathlib import Path
from prefect import flow, get_run_logger, task

def double(number):
    return 2 * number

@task
def where(number):
    get_run_logger().info("doubling %s", number)
    return double(number), os.getpid()

@flow
def sst(target: str, mode: str = "complete", prune: bool = False):
    doubled, pids = zip(*where.map(range(8)).result())
    path = Path(target.removeprefix("file://"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{sum(doubled)} {os.getpid() in pids} {len(set(pids))}")
"""


@pytest.mark.slow
def test_the_tasks_of_a_flow_run_in_the_processes_of_a_cluster(feedstock: Feedstock, tmp_path: Path) -> None:
    assert TWO_WORKERS.dask is not None
    options = {**TWO_WORKERS.dask.options, "protocol": "tls://", "security": True}
    encrypted = Engine(dask=TWO_WORKERS.dask.model_copy(update={"options": options}))
    lines = run(feedstock, FLOW, encrypted, tmp_path / "said")
    assert (tmp_path / "said").read_text() == "56 False 2"
    assert sum("Starting temporary server" in line for line in lines) == 1, "one for the flow and all workers"
    assert sum("doubling" in line for line in lines) == 8


@pytest.mark.slow
def test_workers_that_do_not_reach_the_flows_server_bring_their_own(feedstock: Feedstock, tmp_path: Path) -> None:
    recipe = (
        FLOW.replace("def sst", "def inner")
        + """
from distributed import Client, LocalCluster
from prefect_dask import DaskTaskRunner
from feedstock_forge.task_runner import TemporaryServer, _reaches

def sst(target, mode="complete", prune=False):
    assert not _reaches("http://127.0.0.1:9/api")
    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0") as cluster, Client(cluster) as client:
        client.register_plugin(TemporaryServer())
        inner.with_options(task_runner=DaskTaskRunner(address=cluster.scheduler_address))(target)
"""
    )
    lines = run(feedstock, recipe, Engine(), tmp_path / "said")
    assert (tmp_path / "said").read_text() == "56 False 2"
    assert sum("Starting temporary server" in line for line in lines) == 3, "the flow's, and one for each worker"


def test_an_adaptive_cluster_may_have_no_worker_before_there_is_work(feedstock: Feedstock, tmp_path: Path) -> None:
    recipe = """
    from pathlib import Path
    from distributed import default_client

    def sst(target, mode="complete", prune=False):
        Path(target).write_text(default_client().submit(str, 5).result())
    """
    engine = elsewhere(0, adapt={"minimum": 0, "maximum": 1})
    run(feedstock, recipe, engine, tmp_path / "five", memory="8 GiB")
    assert (tmp_path / "five").read_text() == "5"


STRANGE = """
import distributed

class Endless(distributed.LocalCluster):
    def __exit__(self, *raised):
        super().__exit__(*raised)
        raise RuntimeError("the pod may not be deleted")

def exit_at_once(**options):
    raise SystemExit("log in first")
"""


def test_a_cluster_that_will_not_end_does_not_take_a_run_back(feedstock: Feedstock, tmp_path: Path) -> None:
    (tmp_path / "strange_clusters.py").write_text(STRANGE)
    site = next(path for path in sys.path if path.endswith("site-packages"))
    added = Path(site, f"strange-{os.getpid()}.pth")
    added.write_text(f"{tmp_path}\n")
    try:
        options = {"n_workers": 1, "processes": False, "dashboard_address": ":0"}
        engine = {"dask": {"cluster": "strange_clusters.Endless", "options": options}}
        recipe = "def sst(target, mode='complete', prune=False): ...\n"
        lines = run(feedstock, recipe, Engine.model_validate(engine), tmp_path)
        assert any("Endless does not end" in line and "the pod may not be deleted" in line for line in lines)
        engine = {"dask": {"cluster": "strange_clusters.exit_at_once"}}
        with pytest.raises(Refused) as caught:
            run(feedstock, recipe, Engine.model_validate(engine), tmp_path)
        assert caught.value.findings[0].id == "engine-unavailable"
        assert "log in first" in caught.value.findings[0].message
    finally:
        added.unlink()


@pytest.mark.slow
def test_a_cluster_that_is_lost_is_told_as_that(feedstock: Feedstock, tmp_path: Path) -> None:
    recipe = """
    import threading, time
    from distributed import default_client
    from feedstock_forge.bake import bake

    def slow(ds):
        time.sleep(5)
        return ds

    def sst(target, mode="complete", prune=False):
        scheduler = default_client().cluster.scheduler.process
        threading.Timer(2, scheduler.kill).start()
        bake([{path!r}], target, concat_dim="time", preprocess=slow)
    """
    (path,) = provider.write_inputs(tmp_path, 1, "%Y-%m.nc")
    with pytest.raises(Refused) as caught:
        run(feedstock, textwrap.dedent(recipe).format(path=str(path)), elsewhere(), tmp_path / "lost.zarr")
    assert caught.value.findings[0].id == "engine-unavailable"
    assert not (tmp_path / "lost.zarr").exists()


def test_an_engine_that_does_not_start_is_its_operators_business(feedstock: Feedstock, tmp_path: Path) -> None:
    recipe = "def sst(target, mode='complete', prune=False): ...\n"
    for engine in (
        {"dask": {"cluster": "no_such_library.Cluster"}},
        {"dask": {"cluster": "distributed.LocalCluster", "options": {"n_workers": 1, "nonsense": 1}}},
    ):
        with pytest.raises(Refused) as caught:
            run(feedstock, recipe, Engine.model_validate(engine), tmp_path)
        assert [finding.id for finding in caught.value.findings] == ["engine-unavailable"]
