"""Engines: what a bakery computes with. Threads in one process, unless its ``bakery.yaml`` names a Dask cluster or a
Beam runner.

The engine starts in the recipe's process, with the recipe's packages, and ends with it. An xarray recipe need not
know: the cluster is Dask's default there, and :mod:`feedstock_forge.bake` writes on it. A Beam recipe finds its runner
in ``FEEDSTOCK_BEAM``. What is checked of a ``bakery.yaml`` is checked without importing what it names.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from . import cluster_limits
from .bakery import BakeryFile, Dask, Engine, Limits
from .findings import Finding, Refused, Severity, Who, did_you_mean, rule
from .yaml_file import Loc

UNAVAILABLE = rule("engine-unavailable", "A recipe starts only once its bakery's engine answers.", who=Who.OPERATOR)
OPTION = rule(
    "engine-option-unknown", "A cluster does not start with an option that it does not know.", who=Who.OPERATOR
)
UNCHECKED = rule(
    "engine-unchecked",
    "Only a run will tell whether this cluster takes these options.",
    severity=Severity.HINT,
    who=Who.OPERATOR,
)
SECRET = rule("engine-secret", "Who reads this repository would have the bakery's credentials.", who=Who.OPERATOR)

ENGINE_VARIABLE = "FEEDSTOCK_ENGINE"
BEAM_VARIABLE = "FEEDSTOCK_BEAM"
"""The runner and its options for a recipe of Beam's: ``{"runner": …, "options": {…}}``."""

WAIT = 300.0
"""Seconds for the first worker of a cluster to come."""
CONNECT = 60.0
"""Seconds for a scheduler to answer, and to come back where it was lost."""

# Names of secrets, as clouds and SSH have them: `aws_secret_access_key`, `apiKey`, `password`.
_SECRET_NAME = re.compile(
    r"(?:password|passwd|passphrase|token|secret|credentials?|connection_?string"
    r"|(?:secret|access|api|private|account|storage|auth)_?key)$",
    re.IGNORECASE,
)
# Values that are secrets under any name: a private key, a password in a URL, a token of GitHub's or Prefect's.
_SECRET_VALUE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|://[^/@\s]*:[^/@\s]+@|\b(?:gh[opsu]_|github_pat_|pn[ub]_)\w{16}"
)

_OPTIONS = Path(__file__).with_name("cluster_options.json")


def from_environment(environment: Mapping[str, str]) -> Engine:
    """The engine that the deployment names for this run."""
    return Engine.model_validate_json(environment.get(ENGINE_VARIABLE) or "{}")


def requirements(engine: Engine) -> list[str]:
    """What must be installed where the recipe runs for its engine to start there."""
    if engine.dask is None or engine.dask.cluster is None:
        return []
    library = engine.dask.cluster.split(".")[0]
    # Both come with what every recipe's environment holds.
    return list(engine.dask.requires) or ([] if library in ("dask", "distributed") else [library.replace("_", "-")])


def beam(engine: Engine) -> dict[str, str]:
    """The environment in which a recipe of Beam's finds its runner."""
    return {BEAM_VARIABLE: json.dumps(engine.beam.model_dump(mode="json"))} if engine.beam else {}


@contextmanager
def running(engine: Engine, say: Callable[[str], None], allowed: Limits, label: str) -> Iterator[None]:
    """Have the engine run, as Dask's default in this process, within what ``label`` allows.

    Raises :class:`Refused` if it does not start, or meets a limit (see :mod:`.cluster_limits`).
    """
    if engine.dask is None:
        yield
        return
    import distributed

    with ExitStack() as stack:
        try:
            cluster = None if engine.dask.address else stack.enter_context(_put_away(_cluster(engine.dask), say))
            where = cluster or engine.dask.address
            client: Any = stack.enter_context(_put_away(distributed.Client(where, timeout=CONNECT), say))
            _await_worker(client)
            threads = client.nthreads()
            say(f"Dask: {len(threads)} worker{'s' if len(threads) > 1 else ''}, {sum(threads.values())} threads")
            if cluster is not None and not isinstance(cluster, distributed.LocalCluster):
                stack.enter_context(cluster_limits.held(cluster, client, engine.dask.adapt, allowed, label, say))
        except Refused:
            raise
        except (Exception, SystemExit) as error:  # each kind of cluster has its own ways to fail
            named = engine.dask.cluster or engine.dask.address
            message = f"{named} does not start: {type(error).__name__}: {error}"
            fix = "look at `engine` in the bakery's bakery.yaml, and whether the cluster has room"
            raise Refused(UNAVAILABLE.at(None, message, fix)) from error
        yield


@contextmanager
def _put_away(opened: Any, say: Callable[[str], None]) -> Iterator[Any]:
    """Close a cluster, or its client, at the end; if that fails, a recipe has done its work all the same."""
    entered = opened.__enter__()
    try:
        yield entered
    finally:
        try:
            opened.__exit__(*sys.exc_info())
        except Exception as error:  # each kind of cluster has its own ways to fail
            say(f"Dask: {type(opened).__name__} does not end, look whether it is gone: {type(error).__name__}: {error}")


def _await_worker(client: Any) -> None:
    """Wait until there is a worker: with something to do, since an adaptive cluster may have none before."""
    try:
        client.submit(int, pure=False).result(timeout=WAIT)
    except TimeoutError:
        raise TimeoutError(f"no worker came within {WAIT:g} s") from None


def _cluster(dask: Dask) -> Any:
    module, _, name = str(dask.cluster).rpartition(".")
    cluster = getattr(importlib.import_module(module), name)(**dask.options)
    if dask.adapt:
        cluster.adapt(minimum=dask.adapt.minimum, maximum=dask.adapt.maximum)
    return cluster


def check(file: BakeryFile) -> Iterator[Finding]:
    """The findings of a bakery's engine, held against what the known clusters take; imports nothing that is named."""
    for loc in _secrets(file.bakery.engine.model_dump(), ("engine",)):
        message = f"`{'.'.join(map(str, loc))}` holds what looks like a secret"
        fix = "remove it, change it where it is valid, and put the new one into the environment of the bakery's workers"
        yield SECRET.at(file.document.place(loc), message, fix)
    dask = file.bakery.engine.dask
    if dask is None or dask.cluster is None:
        return
    place = ("engine", "dask", "cluster")
    known = known_clusters()
    if dask.cluster not in known:
        near = did_you_mean(dask.cluster, list(known))
        fix = near if near.startswith("did you mean") else "try it: a run at this bakery shows it"
        yield UNCHECKED.at(file.document.place(place), f"the options of {dask.cluster} are not known here", fix)
        return
    for option in dask.options:
        if option not in known[dask.cluster]:
            where = file.document.place(("engine", "dask", "options", option), key=True)
            message = f"{dask.cluster} has no option `{option}`"
            yield OPTION.at(where, message, did_you_mean(option, known[dask.cluster]))


def _secrets(value: Any, loc: Loc, name: str = "") -> Iterator[Loc]:
    """Where in an engine there are values that look like secrets; ``name`` is what the value is called."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            # Kubernetes writes a variable as `{name: …, value: …}`.
            called = value.get("name") if key == "value" else key
            yield from _secrets(item, (*loc, key), str(called))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _secrets(item, (*loc, index), name)
    elif isinstance(value, str):
        left, equals, right = value.partition("=")
        named = _SECRET_NAME.search(name) or (right and _SECRET_NAME.search(left) if equals else None)
        if value and (named or _SECRET_VALUE.search(value)):
            yield loc


@cache
def known_clusters() -> dict[str, list[str]]:
    """The options of each known cluster class, as its library declares them."""
    table: dict[str, list[str]] = json.loads(_OPTIONS.read_text(encoding="utf-8"))
    return table


def options_of(cluster: str) -> list[str]:
    """The options that a cluster class declares, those that it hands on to its bases included; imports its library."""
    module, _, name = cluster.rpartition(".")
    declared = getattr(importlib.import_module(module), name)
    found: set[str] = set()
    for part in declared.__mro__ if inspect.isclass(declared) else [declared]:
        function = vars(part).get("__init__") if inspect.isclass(part) else part
        if function is None or part is object:
            continue
        parameters = inspect.signature(function).parameters.values()
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        found |= {parameter.name for parameter in parameters if parameter.kind in named} - {"self"}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return sorted(found)


def _write_down(*clusters: str) -> None:
    """Write the table anew: ``python -m feedstock_forge.engines CLUSTER…``, where their libraries are installed."""
    table = known_clusters() | {cluster: options_of(cluster) for cluster in clusters}
    lines = (f"  {json.dumps(cluster)}: {json.dumps(options)}" for cluster, options in sorted(table.items()))
    _OPTIONS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    import sys

    _write_down(*sys.argv[1:])
