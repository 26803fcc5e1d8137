"""One dataset has one writer at a time, whichever labels, bakeries and workers its runs come from.

Prefect's own global concurrency limits do it: one limit a dataset, with one slot that is leased. A run that dies stops
renewing its lease, and the slot is free again when that ends.
https://docs.prefect.io/v3/concepts/global-concurrency-limits
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.runtime import flow_run

LEASE = 180.0
"""Seconds for which a run that died holds its dataset at most."""
SAY_AFTER = 30.0
"""Seconds of waiting between two words about it."""


def limit_name(target: str) -> str:
    """The concurrency limit of the dataset at a URL: short, and without what Prefect's API takes for a path."""
    return f"dataset-{hashlib.sha256(target.rstrip('/').encode()).hexdigest()[:32]}"


@contextmanager
def one_writer(target: str) -> Iterator[None]:
    """Hold the right to write the dataset at ``target``; waits, and says so, while another run has it.

    A run whose lease cannot be renewed for long is ended: somebody else may be writing by then.
    """
    logger, name = get_run_logger(), limit_name(target)
    _make_limit(name)
    run = flow_run.get_id()
    holder = ConcurrencyLeaseHolder(type="flow_run", id=UUID(run)) if run else None
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(
                    concurrency(name, strict=True, lease_duration=LEASE, timeout_seconds=SAY_AFTER, holder=holder)
                )
                break
            except TimeoutError:
                logger.info("waiting: another run writes %s (concurrency limit %s)", target, name)
        yield


def _make_limit(name: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            try:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
            except (ObjectAlreadyExists, PrefectHTTPStatusError):
                client.read_global_concurrency_limit_by_name(name)  # another run made it meanwhile
