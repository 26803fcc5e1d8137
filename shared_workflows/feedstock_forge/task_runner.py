"""Recipes that are Prefect flows on the bakery's Dask cluster: the tasks that they submit run on its workers.

A recipe never sees the bakery's own Prefect, so a flow and its tasks speak to a temporary server: one for all where the
workers reach that of the recipe's process, as those of a ``LocalCluster`` do; elsewhere each worker brings its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import distributed
import httpx
from prefect import Flow
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_SERVER_ANALYTICS_ENABLED, temporary_settings
from prefect_dask.task_runners import DaskTaskRunner

START = 120
"""Seconds for a temporary server to start; a new one makes its database first."""


@contextmanager
def on_cluster(recipe: Flow[..., Any], say: Callable[[str], None]) -> Iterator[Flow[..., Any]]:
    """The flow with the Dask cluster that is the default here as its task runner, whichever it names itself."""
    client = distributed.default_client()
    server = SubprocessASGIServer()
    server.start(START)
    runner: Any = DaskTaskRunner(address=client.scheduler.address, client_kwargs={"security": client.security})
    ours = recipe.with_options(task_runner=runner)
    if all(client.run(_reaches, server.api_url).values()):
        # Tasks take the settings of their flow along.
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            yield ours
    else:
        say("Dask: each worker starts a Prefect server of its own for the flow's tasks")
        client.register_plugin(TemporaryServer())
        yield ours


def _reaches(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


class TemporaryServer(distributed.WorkerPlugin):
    """Starts Prefect's temporary server before a worker's first task: of two tasks one would not wait for it."""

    name = "feedstock-temporary-server"

    async def setup(self, worker: Any) -> None:
        """Start it, with a database of the worker's own."""
        home = Path(worker.local_directory) / "prefect"
        with temporary_settings({PREFECT_HOME: home, PREFECT_SERVER_ANALYTICS_ENABLED: False}):
            await asyncio.to_thread(SubprocessASGIServer().start, START)

    async def teardown(self, worker: Any) -> None:  # noqa: ARG002 - as distributed calls it
        """Stop it."""
        await asyncio.to_thread(SubprocessASGIServer().stop)
