"""Proposed recipes, run once at the development bakery: registered, followed, told, and taken out of Prefect again."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .. import register, report, watch
from ..bakery import Bakeries
from ..findings import Refused
from ..markdown import block, details
from ..prefect import Prefect
from .commands import BakeryRun


@dataclass(frozen=True, slots=True)
class Ended:
    """How it went, in Markdown."""

    text: str
    well: bool


def run(
    tests: Sequence[BakeryRun],
    bakeries: Bakeries,
    wait: float,
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> Ended:
    """Register tests, follow their runs for at most ``wait`` seconds, and delete their deployments.

    Raises :class:`Refused` if the bakery does not take them, or Prefect cannot be asked. Doing it again for the same
    comment finds the runs that it started.
    """
    today = datetime.datetime.now(datetime.UTC).date()
    wanted = []
    for test in tests:
        decided = register.decisions(test.trigger, test.plan, bakeries, today)
        if refused := [finding for decision in decided for finding in decision.findings]:
            raise Refused(*refused)
        wanted += register.deployments(test.trigger, test.plan, decided)
    keys = [run.key for deployment in wanted for run in deployment.runs]
    with Prefect.from_environment(environment, say=say) as client:
        try:
            register.register(client, wanted, say=say)
            runs = watch.watch(lambda: [watch.watched(row) for row in client.runs(keys)], timeout=wait, say=say)
            wrong = watch.findings(client, runs, wait)
            lines = [report.ended(runs, wrong, client.ui)]
            last = {one.name: watch.last_words(client, one) for one in runs}
            lines += [
                details(f"The last words of {name}", block("\n".join(said))) for name, said in last.items() if said
            ]
        finally:
            _tidy(client, tests)
    version = tests[0].trigger.commit[:12]
    return Ended("\n\n".join([*lines, f"As of commit `{version}`, pruned."]), not wrong)


def refusal(refused: Refused) -> str:
    """What is told where nothing ran."""
    return "\n".join(["### Nothing was run", "", *(report.finding(finding) for finding in refused.findings)])


def _tidy(client: Prefect, tests: Sequence[BakeryRun]) -> None:
    """Delete what stands in Prefect for these tests; their runs stay to be looked at."""
    for test in tests:
        for row in list(client.deployments_tagged(register.feedstock_tag(test.plan.feedstock))):
            client.delete_deployment(row["id"])
