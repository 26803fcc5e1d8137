"""Limits: what one run may take of memory, processors and time, held where the run happens.

The numbers come with the deployment (see :mod:`feedstock_forge.job_variables`). A recipe is kept to its processors by
the kernel; its memory and its time are watched, over all the processes that it starts, and a run that meets a limit is
ended with a finding that says which, how much, and how to ask for more.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import subprocess
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .bakery import Limits
from .findings import Finding, Who, rule
from .quantities import format_duration, format_memory

if TYPE_CHECKING:
    import psutil

MEMORY = rule("limit-memory", "The label's memory is what its operators set aside for one run.", who=Who.MAINTAINER)
CPU = rule("limit-cpu", "The label's processors are what its operators set aside for one run.", who=Who.MAINTAINER)
PROCESSES = rule("limit-processes", "A run that only ever starts processes keeps everybody from theirs.")
DISK = rule("limit-disk", "A disk that one run fills is full for everybody.")
RUNTIME = rule("limit-runtime", "A run that does not end keeps others waiting.", who=Who.MAINTAINER)

LIMITS_VARIABLE = "FEEDSTOCK_LIMITS"
LABEL_VARIABLE = "FEEDSTOCK_LABEL"

_EVERY = 0.25
"""Seconds between two looks at a run."""
_MOST_PROCESSES = 1000
"""Far more than any cluster on one machine has use for."""
_CPU_SLACK = 60.0
"""Seconds of processor time beyond the limit before a run that has left its processors is ended."""

# How many threads the libraries below NumPy, Zarr and Dask start by default.
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "BLOSC_NTHREADS",
    "DASK_NUM_WORKERS",
    "ZARR_THREADING__MAX_WORKERS",
)


def from_environment(environment: Mapping[str, str]) -> Limits:
    """The limits that the deployment sets for this run; none where nothing is set, as on a laptop."""
    return Limits.model_validate_json(environment.get(LIMITS_VARIABLE) or "{}")


def words(limits: Limits) -> str:
    """The limits for a person: ``4 GiB, 2 cores, 30 min``; empty if there are none."""
    memory = format_memory(limits.memory) if limits.memory else ""
    cores = f"{limits.cpu:g} core{'s' if limits.cpu != 1 else ''}" if limits.cpu else ""
    return ", ".join(filter(None, (memory, cores, format_duration(limits.runtime) if limits.runtime else "")))


def processors(limits: Limits) -> list[int]:
    """Which of this machine's processors a run may use; empty if that is not limited, or not to be had here.

    Chosen at random, so that runs side by side spread.
    """
    if limits.cpu is None or not hasattr(os, "sched_getaffinity"):
        return []
    here = sorted(os.sched_getaffinity(0))
    return random.sample(here, min(len(here), math.ceil(limits.cpu)))


def threads(limits: Limits) -> dict[str, str]:
    """The environment in which libraries start no more threads than the run has processors."""
    return {} if limits.cpu is None else dict.fromkeys(_THREADS, str(math.ceil(limits.cpu)))


@dataclass(frozen=True, slots=True)
class Room:
    """How many bytes of files a run may keep, and in which folders they are counted."""

    disk: int
    folders: tuple[Path, ...]


@dataclass(slots=True)
class Use:
    """What a run has taken so far: bytes at their highest, seconds of its processors, seconds since it began."""

    memory: int = 0
    disk: int = 0
    cpu: float = 0.0
    runtime: float = 0.0

    def __str__(self) -> str:
        """For a line of the log: ``1.2 GiB of memory at most, 65 s of processor time, 40 s``."""
        return f"{_rounded(self.memory)} of memory at most, {self.cpu:.0f} s of processor time, {self.runtime:.0f} s"


def watch(
    process: subprocess.Popen[bytes],
    limits: Limits,
    label: str,
    use: Use,
    room: Room | None = None,
    others: Collection[int] = (),
) -> Finding | None:
    """Wait until a process ends, or until it and its descendants meet a limit: then the finding that says so.

    All processes below this one count, but for ``others``: a daemon of the run's is no longer below ``process``.
    ``room`` is held where it is given. ``use`` is kept up to date meanwhile. Memory is what the processes hold
    themselves, shared pages counted once; files that they map, which the kernel can let go of, do not count.
    """
    import psutil

    began = time.monotonic()
    killed = _killed_for_memory()
    look_again = 0.0
    while True:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [one for one in psutil.Process().children(recursive=True) if one.pid not in others]
            use.memory = max(use.memory, _memory(family, limits.memory))
            use.cpu = max(use.cpu, sum(map(_cpu, family)))
            if len(family) > _MOST_PROCESSES:
                message = f"the run started {len(family)} processes, and was still at it"
                return PROCESSES.at(None, message, "start a fixed number of workers, or none")
        if room and (use.runtime >= look_again or process.poll() is not None):
            looked = time.monotonic()
            use.disk = max(use.disk, sum(map(size_of, room.folders)))
            # Many files take long to count: a tenth of the time, at the most.
            look_again = time.monotonic() - began + 10 * (time.monotonic() - looked)
            if use.disk > room.disk:
                message = f"the run kept {_rounded(use.disk)} of files; at most {_rounded(room.disk)} are allowed here"
                return DISK.at(None, message, "prune to smaller inputs, or keep less beside the dataset")
        use.runtime = time.monotonic() - began
        if found := over(limits, use, label):
            return found
        try:
            process.wait(_EVERY)
        except subprocess.TimeoutExpired:
            continue
        if process.returncode == -9 and _killed_for_memory() > killed:
            return _more_memory(limits, use, label)
        return None


def over(limits: Limits, use: Use, label: str) -> Finding | None:
    """The finding for a run that has taken more than its limits; None if it is within."""
    if limits.memory is not None and use.memory > limits.memory:
        return _more_memory(limits, use, label)
    if limits.runtime is not None and use.runtime > limits.runtime:
        message = f"the run took longer than the {format_duration(limits.runtime)} that {_gives(label)}"
        operators = f", or ask {label.rpartition('.')[0]}'s operators for a longer `runtime`" if label else ""
        return RUNTIME.at(None, message, f"make it quicker, or split it into several recipes{operators}")
    if limits.cpu is not None and use.cpu > math.ceil(limits.cpu) * use.runtime + _CPU_SLACK:
        message = f"the run used {use.cpu / use.runtime:.1f} processors, not the {limits.cpu:g} that {_gives(label)}"
        fix = f"stay on the processors that the run was given{_ask(label, limits.memory, 2 * math.ceil(limits.cpu))}"
        return CPU.at(None, message, fix)
    return None


def _more_memory(limits: Limits, use: Use, label: str) -> Finding:
    if limits.memory is None:
        message = f"the machine's memory ran out; the run was last seen with {_rounded(use.memory)}"
        return MEMORY.at(None, message, "take smaller chunks, or ask for a label with more memory")
    used = _rounded(max(use.memory, limits.memory))
    message = f"the run used {used} of memory, not the {format_memory(limits.memory)} that {_gives(label)}"
    return MEMORY.at(None, message, f"take smaller chunks{_ask(label, 2 * limits.memory, limits.cpu)}")


def _ask(label: str, memory: int | None, cpu: float | None) -> str:
    """How to get more of a label; nothing where no label set the limit, as on a laptop or in a trial."""
    if not label:
        return ""
    bakery, _, name = label.rpartition(".")
    wanted = ",".join(([format_memory(memory)] if memory else []) + ([f"{cpu:g}"] if cpu else []))
    return f", or ask for more: `feedstock label request {bakery} {name} --resources '{wanted}'`"


def _gives(label: str) -> str:
    return f"the label {label} gives it" if label else "it may take here"


def _rounded(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _memory(family: list[psutil.Process], limit: int | None) -> int:
    """Bytes that processes hold. The kernel counts them for free, pages that they share several times; only where that
    is too much are the pages looked at one by one, which takes long for a process with many."""
    quick = sum(_held(process, "status", ("RssAnon:", "RssShmem:", "VmSwap:")) for process in family)
    if limit is None or quick <= limit:
        return quick
    return sum(_held(process, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")) for process in family)


def _held(process: psutil.Process, file: str, counted: tuple[str, ...]) -> int:
    """Bytes of a process in the lines of its file in /proc: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html"""
    import psutil

    try:
        lines = Path(f"/proc/{process.pid}/{file}").read_text(encoding="utf-8", errors="replace").splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(counted))
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return 0  # it has ended
    except OSError:
        pass
    try:
        size: int = process.memory_info().rss
    except psutil.Error:
        return 0
    return size


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder; where a link leads does not count."""
    size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += Path(root, name).lstat().st_size
    return size


def _cpu(process: psutil.Process) -> float:
    """Seconds of processor time of a process and of its children that have ended."""
    import psutil

    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.Error:
        return 0.0


def _killed_for_memory() -> int:
    """How many processes of this control group the kernel has ended because its memory ran out."""
    try:
        events = Path("/sys/fs/cgroup/memory.events").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(dict(zip(events[::2], events[1::2], strict=True)).get("oom_kill", 0))
