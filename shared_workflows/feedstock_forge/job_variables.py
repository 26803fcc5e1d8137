"""What a deployment tells Prefect's worker of the job that it starts: image, environment, size.

Each type of work pool has its own names and units for them; these are the defaults of Prefect's own worker types, as
a server lists them under ``/collections/views/aggregate-worker-metadata``. A pool of another type gets the
environment, where :mod:`feedstock_forge.limits` and :mod:`feedstock_forge.engines` find what the run may take and what
it computes with.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from .bakery import Bakery, Limits
from .engines import ENGINE_VARIABLE
from .limits import LABEL_VARIABLE, LIMITS_VARIABLE

_STARTING = 600
"""Seconds that a container may take to start, beside the run itself."""


def _kubernetes(limits: Limits) -> dict[str, Any]:
    memory = {f"memory_{kind}": str(limits.memory) for kind in ("request", "limit")} if limits.memory else {}
    cpu = {f"cpu_{kind}": f"{math.ceil(limits.cpu * 1000)}m" for kind in ("request", "limit")} if limits.cpu else {}
    return {**memory, **cpu}


def _docker(limits: Limits) -> dict[str, Any]:
    # Without the second, Docker would let the container swap as much again.
    return {"mem_limit": f"{limits.memory}b", "memswap_limit": f"{limits.memory}b"} if limits.memory else {}


def _ecs(limits: Limits) -> dict[str, Any]:
    memory = {"memory": math.ceil(limits.memory / 2**20)} if limits.memory else {}
    return {**memory, **({"cpu": math.ceil(limits.cpu * 1024)} if limits.cpu else {})}


def _cloud_run(limits: Limits, longest: int) -> dict[str, Any]:
    memory = {"memory": f"{math.ceil(limits.memory / 2**20)}Mi"} if limits.memory else {}
    cpu = {"cpu": f"{math.ceil(limits.cpu)}000m"} if limits.cpu else {}
    return {**memory, **cpu, **({"timeout": min(limits.runtime + _STARTING, longest)} if limits.runtime else {})}


def _container_instance(limits: Limits) -> dict[str, Any]:
    memory = {"memory": limits.memory / 10**9} if limits.memory else {}
    return {**memory, **({"cpu": limits.cpu} if limits.cpu else {})}


def _vertex(limits: Limits) -> dict[str, Any]:
    return {"maximum_run_time_hours": math.ceil((limits.runtime + _STARTING) / 3600)} if limits.runtime else {}


_SIZES: dict[str, Callable[[Limits], dict[str, Any]]] = {
    "kubernetes": _kubernetes,
    "docker": _docker,
    "ecs": _ecs,
    "cloud-run": lambda limits: _cloud_run(limits, 3600),
    "cloud-run-v2": lambda limits: _cloud_run(limits, 604_800),
    "azure-container-instance": _container_instance,
    "vertex-ai": _vertex,
}


def job_variables(bakery: Bakery, label: str, limits: Limits, feedstock: str, version: str) -> dict[str, Any]:
    """The job variables of a deployment at a bakery: ``label`` is ``<bakery>.<label>``."""
    pool = bakery.work_pool
    environment = {LABEL_VARIABLE: label}
    if known := limits.model_dump(mode="json", exclude_none=True):
        environment[LIMITS_VARIABLE] = json.dumps(known)
    if pool_engine := bakery.engine.model_dump(mode="json", exclude_none=True):
        environment[ENGINE_VARIABLE] = json.dumps(pool_engine)
    image = {"image": _image(pool.image, feedstock, version)} if pool.image else {}
    size = _SIZES[pool.type](limits) if pool.type in _SIZES else {}
    return {**image, **size, "env": environment}


def _image(name: str, feedstock: str, version: str) -> str:
    # A tag has no slash and no plus. https://github.com/distribution/reference
    return name.format(feedstock=feedstock.lower(), version=re.sub(r"[^A-Za-z0-9_.-]", "-", version)[:128])
