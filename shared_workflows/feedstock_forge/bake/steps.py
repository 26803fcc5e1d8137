"""Steps of a bake: plain calls, or Prefect task runs where a Prefect flow is running."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from ..findings import Finding, Refused, text

T = TypeVar("T")
R = TypeVar("R")

MOST_FINDINGS = 10
"""After this many findings the rest of the inputs would not teach more."""

log = logging.getLogger("feedstock_forge.bake")


class Stopped(Exception):  # noqa: N818 - reads as what happened
    """The run was stopped while this step worked; whoever stopped it knows why."""


def in_flow_run() -> bool:
    """Whether a Prefect flow is running here. Never imports Prefect: a flow cannot run without it."""
    if "prefect" not in sys.modules:
        return False
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None


def step(name: str, function: Callable[[], R]) -> R:
    """Run ``function``; inside a Prefect flow run as a task run called ``name``."""
    if not in_flow_run():
        return function()
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    def logged() -> R:
        try:
            return function()
        except Refused as refused:
            for finding in refused.findings:
                log.error(text(finding))
            raise

    escaped = name.replace("{", "{{").replace("}", "}}")
    run = task(name=name.split()[0], task_run_name=escaped, cache_policy=NO_CACHE, persist_result=False)(logged)
    return run()


@contextmanager
def run_log() -> Iterator[None]:
    """Inside a Prefect flow run, send this package's log lines to the run's log too."""
    if not in_flow_run():
        yield
        return
    from prefect.logging.handlers import APILogHandler

    handler = APILogHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def in_threads(function: Callable[[T], R], items: Iterable[T], threads: int, stop: threading.Event) -> list[R]:
    """``function`` of every item, in the order of ``items``, in ``threads`` threads.

    Items are taken as threads become free, so a generator is never run far ahead. Refusals are collected and raised
    together; any other exception, and Ctrl-C, sets ``stop`` and is raised once the threads have come to rest.
    """
    results: dict[int, R] = {}
    findings: list[Finding] = []
    running: dict[Future[R], int] = {}
    rest = enumerate(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="bake") as pool:
        try:
            exhausted = False
            while running or not exhausted:
                while not exhausted and len(running) < threads and len(findings) < MOST_FINDINGS:
                    index, item = next(rest, (-1, None))
                    if index < 0:
                        exhausted = True
                    else:
                        # Prefect knows the run by context variables, which threads do not inherit.
                        running[pool.submit(contextvars.copy_context().run, function, item)] = index  # type: ignore[arg-type]
                exhausted = exhausted or len(findings) >= MOST_FINDINGS
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    index = running.pop(future)
                    try:
                        results[index] = future.result()
                    except Refused as refused:
                        findings.extend(refused.findings)
        except BaseException:
            stop.set()
            raise
    if findings:
        raise Refused(*findings)
    return [results[index] for index in sorted(results)]
