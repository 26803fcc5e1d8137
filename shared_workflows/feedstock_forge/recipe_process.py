"""The process of a recipe: a worker's flow run starts it, listens to it, and ends it with everything that it started.

The recipe's code gets a Python of its own (see :mod:`feedstock_forge.environments`) and an environment without
Prefect's credentials. What it prints becomes lines of the run's log; what it found out comes back as findings. Its
standard input is a leash: it closes when the flow run's process ends, however that ends, and the recipe ends with it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import IO, Any, Literal

from . import engines, leash, limits, meta, recipes
from .bake import Provenance, coming_from, locks
from .bakery import Engine, Limits
from .findings import Finding, Refused, as_data, of_data, rule
from .limits import Room, Use

DIED = rule("recipe-died", "The dataset stays as it was before the run.")

MAX_LINE = 10_000
"""Characters of a line of the log."""

# Whoever holds these can act in the worker's name, towards Prefect or GitHub.
_WORKERS_OWN = ("PREFECT_", "GITHUB_", "GH_", "ACTIONS_")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
_SHORTEST_SECRET = 8
_LONGEST_REPLY = 10 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """What a recipe's process is told."""

    folder: str
    """The feedstock's checkout."""
    recipe: str
    target: str
    mode: Literal["complete", "update"]
    prune: bool
    provenance: Provenance
    engine: Engine = field(default_factory=Engine)
    allowed: Limits = field(default_factory=Limits)
    """What it may take, wherever it computes."""
    label: str = ""
    """The ``<bakery>.<label>`` that says so."""
    processors: list[int] = field(default_factory=list)
    """Those of the machine that it may use; all if there are none."""


def run(
    python: Path,
    job: Job,
    say: Callable[[str], None],
    *,
    room: Room | None = None,
    use: Use | None = None,
) -> None:
    """Run a recipe in a process of its own and wait for it; ``say`` gets what it prints, line by line.

    ``room`` holds its files too, those that it keeps for itself included. ``use`` is told what it took. Raises
    :class:`Refused` with the findings of the recipe, because it met a limit, or because its process died. However this
    call ends, by Prefect's signal for one, the process has ended, and so has everything that it started.
    """
    allowed, use = job.allowed, use or Use()
    others = leash.adopt()
    hidden = _hidden(os.environ)
    with locks.scratch(Path(tempfile.gettempdir()), "feedstock-run-") as scratch:
        reply = scratch / "reply.json"
        process = subprocess.Popen(
            # -P: a file at the checkout's root may not stand in for a package of the same name, ours for one.
            [python, "-P", "-u", "-c", _CHILD, str(reply)],
            env=_environment(os.environ, scratch) | limits.threads(allowed) | engines.beam(job.engine),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdin is not None  # noqa: S101 - as asked for above
        assert process.stdout is not None  # noqa: S101
        listener = threading.Thread(target=_listen, args=(process.stdout, hidden, say), daemon=True)
        listener.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                told = asdict(replace(job, processors=limits.processors(allowed)))
                told |= {"engine": job.engine.model_dump(mode="json"), "allowed": allowed.model_dump(mode="json")}
                process.stdin.write(json.dumps(told).encode() + b"\n")
                process.stdin.flush()
            kept = replace(room, folders=(*room.folders, scratch)) if room else None
            met = limits.watch(process, allowed, job.label, use, kept, others)
        finally:
            leash.end(process, others)
            # Something that it started and that left its group may hold the other end of the pipe.
            listener.join(leash.GRACE)
        say(f"the recipe used {use}")
        refuse([met] if met else _answer(reply, process.returncode, hidden))


def refuse(found: Iterable[Finding]) -> None:
    """Raise :class:`Refused` if there are findings."""
    if refusing := tuple(found):
        raise Refused(*refusing)


def _environment(environment: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """What a recipe sees: the worker's environment, storage credentials included, without Prefect's and GitHub's.

    A recipe that is a Prefect flow gets a temporary server of its own, as on a laptop.
    """
    kept = {key: value for key, value in environment.items() if not key.startswith(_WORKERS_OWN)}
    kept.pop("PYTHONPATH", None)
    # Dask reads it when it is imported. That workers come and go is nothing for a run's log.
    kept.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")
    return kept | {
        # What it leaves there when it is killed goes with the folder.
        "TMPDIR": str(scratch),
        "PREFECT_HOME": str(scratch / "prefect"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # A new home takes its database longer to make than Prefect waits by default.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }


def _hidden(environment: Mapping[str, str]) -> list[bytes]:
    """The values that nothing may show that a recipe says, and each line of those that have several."""
    values = [value for key, value in environment.items() if _SECRET.search(key)]
    secrets = {part for value in values for part in (value, *value.splitlines()) if len(part) >= _SHORTEST_SECRET}
    return sorted((os.fsencode(secret) for secret in secrets), key=len, reverse=True)


def _struck(text: bytes, hidden: list[bytes]) -> bytes:
    for secret in hidden:
        text = text.replace(secret, b"***")
    return text


def _without(text: str, hidden: list[bytes]) -> str:
    return _struck(text.encode(errors="surrogatepass"), hidden).decode(errors="surrogatepass")


def _listen(output: IO[bytes], hidden: list[bytes], say: Callable[[str], None]) -> None:
    """Say what comes, line by line and without what is hidden, until nothing more can come."""
    longest, held = max(map(len, hidden), default=0), b""
    while raw := output.readline(MAX_LINE):
        line = _struck(held + raw, hidden)
        # Where a line is cut, a secret may go on in what comes next.
        kept = 0 if raw.endswith(b"\n") else min(longest, len(line))
        line, held = line[: len(line) - kept], line[len(line) - kept :]
        if said := line.decode(errors="replace").rstrip():
            # A recipe waits for whoever reads, also where nobody listens any more.
            with contextlib.suppress(Exception):
                say(said)
    if held:
        with contextlib.suppress(Exception):
            say(held.decode(errors="replace"))


def _answer(reply: Path, status: int, hidden: list[bytes]) -> list[Finding]:
    """The findings of a process that has ended, without what is hidden."""
    try:
        found = [of_data(item) for item in json.loads(_content(reply))["findings"]]
        return [replace(each, message=_without(each.message, hidden), fix=_without(each.fix, hidden)) for each in found]
    except (OSError, ValueError, TypeError, KeyError):
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended Python with status {status}"
        fix = "look at the lines of the log before this one"
        if status == -signal.SIGKILL:
            fix = "ask whether memory ran out: Linux ends processes so. Take smaller chunks, or ask for more memory"
        return [DIED.at(None, f"the recipe's process {how}", fix)]


def _content(reply: Path) -> bytes:
    """What a recipe's process has written, if that is a file. Raises ``OSError``."""
    # Never waits, for a recipe may have put a pipe there; nor reads without end.
    with open(os.open(reply, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:  # noqa: PTH123
        return file.read(_LONGEST_REPLY)


_CHILD = f"import sys; from {__name__} import _child; _child(*sys.argv[1:])"


def _child(reply: str) -> None:
    """What the recipe's process does."""
    told = json.loads(sys.stdin.readline())
    typed = {
        "provenance": Provenance(**told["provenance"]),
        "engine": Engine.model_validate(told["engine"]),
        "allowed": Limits.model_validate(told["allowed"]),
    }
    job = Job(**{**told, **typed})
    leash.hold()
    if job.processors:
        os.sched_setaffinity(0, job.processors)
    if job.allowed.memory:
        import resource

        # Linux leaves it at that; but Dask's workers on this machine share it out, and spill before they pass it.
        resource.setrlimit(resource.RLIMIT_RSS, (job.allowed.memory, job.allowed.memory))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for noisy in ("httpx", "botocore", "aiohttp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    found: tuple[Finding, ...] = ()
    try:
        _run(job)
    except Refused as refused:
        found = refused.findings
        if refused.__cause__ is not None:
            traceback.print_exception(refused.__cause__)
    except KeyboardInterrupt:
        sys.exit("stopped")
    said = json.dumps({"findings": [as_data(finding) for finding in found]})
    Path(reply).write_text(said, encoding="utf-8")


def _run(job: Job) -> None:
    folder = Path(job.folder)
    file = meta.read(folder, repository=job.provenance.repository)
    _, bake, _ = recipes.recipe(folder, file, job.recipe)
    with coming_from(job.provenance), engines.running(job.engine, print, job.allowed, job.label), ExitStack() as stack:
        if job.engine.dask:
            _send_by_value(folder / meta.FOLDER)
            bake = stack.enter_context(_tasks_on_cluster(bake))
        recipes.run(folder, bake, job.recipe, target=job.target, mode=job.mode, prune=job.prune)


@contextmanager
def _tasks_on_cluster(bake: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """The recipe; if it is a Prefect flow, one whose tasks run on the Dask cluster."""
    # A flow has imported Prefect; what is none need not.
    prefect = sys.modules.get("prefect")
    if prefect is None or not isinstance(bake, prefect.Flow):
        yield bake
    elif find_spec("prefect_dask") is None:
        print("Dask: the flow's tasks stay in its process, since prefect-dask does not go with its requirements")
        yield bake
    else:
        from . import task_runner

        with task_runner.on_cluster(bake, print) as flow:
            yield flow


def _send_by_value(folder: Path) -> None:
    """Have what the feedstock's modules define sent to workers whole: they have no checkout to import it from."""
    import cloudpickle

    root = folder.resolve()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and Path(file).resolve().is_relative_to(root):
            cloudpickle.register_pickle_by_value(module)
            _as_of_main(module.__name__, vars(module))


def _as_of_main(module: str, namespace: Mapping[str, Any]) -> None:
    """Have functions and classes of a module look as if ``__main__`` had defined them, as those of a notebook.

    Dask asks cloudpickle only for what pickle does not send by name, and for what is of ``__main__``, which no other
    process has: https://github.com/dask/distributed/blob/main/distributed/protocol/pickle.py
    """
    for value in list(namespace.values()):
        defined = getattr(value, "__func__", value)  # of a static method, or a class's
        if isinstance(defined, FunctionType | type) and defined.__module__ == module:
            defined.__module__ = "__main__"
            if isinstance(defined, type):
                _as_of_main(module, vars(defined))
