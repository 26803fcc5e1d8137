"""Who may run what until when, and what is live in Prefect beyond that."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..bakery import Bakeries, BakeryFile, GrantFile
from ..findings import Finding, Refused, Who, rule
from ..meta import Event
from ..plan import Request
from ..register import ENTRYPOINT
from ..trigger import Trigger
from .consent import Condition, Decision, decide
from .grants import SOON, check

FOREIGN = rule(
    "deployment-foreign",
    "What did not come through `feedstock register` runs at a bakery without anybody's consent.",
    who=Who.OPERATOR,
)

TAKEN = rule(
    "feedstock-name-taken",
    "A feedstock's name is the name of its datasets and deployments; two of one name would overwrite each other.",
    who=Who.OPERATOR,
)

ANYBODY = "anybody"


@dataclass(frozen=True, slots=True)
class Consent:
    """One line of who may run what until when."""

    bakery: str
    label: str
    repository: str
    recipes: tuple[str, ...]
    events: tuple[str, ...]
    until: datetime.date | None
    state: str
    """``granted``, ``ends soon``, ``expired``, ``revoked``, ``open`` or ``closed``."""


@dataclass(frozen=True, slots=True)
class Live:
    """A deployment in Prefect that has to do with a bakery, and what is wrong with it."""

    id: str
    name: str
    """``<flow>/<deployment>``."""
    bakery: str
    pool: str
    queue: str
    repository: str
    paused: bool
    findings: tuple[Finding, ...]
    waiting: tuple[tuple[str, str], ...] = ()
    """The id and the name of every run that has not begun."""

    @property
    def drifted(self) -> bool:
        """Whether it could run beyond the grants."""
        return bool(self.findings) and (not self.paused or bool(self.waiting))


@dataclass(frozen=True, slots=True)
class Audit:
    """All that was found: consents, deployments, and files that could not be read."""

    consents: tuple[Consent, ...]
    live: tuple[Live, ...] | None
    """``None`` where Prefect was not asked."""
    findings: tuple[Finding, ...] = ()


def audit(
    bakeries: Bakeries,
    rows: Iterable[Mapping[str, Any]] | None,
    runs: Iterable[Mapping[str, Any]],
    today: datetime.date,
    only: str | None = None,
) -> Audit:
    """Audit the bakery database, and against it Prefect's deployments (``rows``) with the ``runs`` that wait for them.

    ``only`` is one bakery; otherwise all are looked at.
    """
    consents: list[Consent] = []
    pools: dict[str, BakeryFile] = {}
    for bakery_id in bakeries.ids():
        try:
            bakery = bakeries.read(bakery_id)
        except Refused:
            continue  # `check` below says why
        pools.setdefault(bakery.bakery.work_pool.name, bakery)
        if only in (None, bakery_id):
            consents += _consents(bakeries, bakery, today)
    live = None
    if rows is not None:
        waiting: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for run in runs:
            waiting[str(run["deployment_id"])].append((run["id"], run["name"]))
        found = (_live(row, bakeries, pools, today, tuple(waiting.get(row["id"], ()))) for row in rows)
        live = tuple(item for item in found if item and only in (None, item.bakery))
    return Audit(tuple(consents), live, tuple(check(bakeries, only)))


def _consents(bakeries: Bakeries, bakery: BakeryFile, today: datetime.date) -> list[Consent]:
    described = bakery.bakery
    consents = [
        Consent(bakery.id, name, ANYBODY, ("*",), ("release", "merge"), None, "closed" if described.closed else "open")
        for name, spec in described.labels.items()
        if spec.grants == "open"
    ]
    for path in bakeries.grants(bakery.id):
        try:
            file = bakeries.read_grant(path)
        except Refused:
            continue
        grant = file.grant
        consents.append(
            Consent(
                bakery.id,
                grant.label,
                grant.repository,
                tuple(grant.recipes),
                tuple(grant.events),
                grant.expires,
                _state(bakery, file, today),
            )
        )
    return consents


def _state(bakery: BakeryFile, file: GrantFile, today: datetime.date) -> str:
    grant, spec = file.grant, bakery.bakery.labels.get(file.grant.label)
    if bakery.bakery.closed or spec is None or spec.grants == "closed":
        return "closed"
    if grant.revoked:
        return "revoked"
    if grant.expires and grant.expires < today:
        return "expired"
    return "ends soon" if grant.expires and grant.expires - today <= SOON else "granted"


def _live(
    row: Mapping[str, Any],
    bakeries: Bakeries,
    pools: Mapping[str, BakeryFile],
    today: datetime.date,
    waiting: tuple[tuple[str, str], ...],
) -> Live | None:
    """A deployment held against the grants; ``None`` if it has nothing to do with any bakery."""
    tags = dict(tag.split(":", 1) for tag in row["tags"] if ":" in tag)
    pool, queue = row.get("work_pool_name") or "", row.get("work_queue_name") or ""
    bakery = pools.get(pool)
    if bakery is None and "bakery" not in tags:
        return None
    parameters: Mapping[str, Any] = row.get("parameters") or {}
    repository = str(parameters.get("repository", ""))
    # The pool and the queue are what runs it; the tags are only what somebody wrote on it.
    where = bakery.id if bakery else tags["bakery"]
    claims = {"bakery": (tags.get("bakery"), where), "label": (tags.get("label"), queue)}
    foreign = [
        f"is tagged {key}:{said} and runs at {true}" if said else f"lacks the tag {key}:{true}"
        for key, (said, true) in claims.items()
        if said != true
    ]
    if row.get("entrypoint") != ENTRYPOINT:
        foreign.append(f"runs {row.get('entrypoint')}")
    if not tags.get("repository", "").isascii() or not tags.get("repository", "").isdigit():
        foreign.append("names no repository id")
    findings: list[Finding] = []
    if foreign or "/" not in repository:
        message = f"it was not made by `feedstock register`: it {', '.join(foreign or ['names no repository'])}"
        findings.append(FOREIGN.at(None, message, "pause it (`feedstock label audit --fix`) and find out whose it is"))
    else:
        event: Event = "merge" if parameters.get("mode") == "update" else "release"
        findings += _beyond(row, repository, int(tags["repository"]), event, where, queue, bakeries, bakery, today)
    name = f"{row['flow_name']}/{row['name']}"
    return Live(row["id"], name, where, pool, queue, repository, bool(row.get("paused")), tuple(findings), waiting)


def _beyond(
    row: Mapping[str, Any],
    repository: str,
    repository_id: int,
    event: Event,
    where: str,
    queue: str,
    bakeries: Bakeries,
    bakery: BakeryFile | None,
    today: datetime.date,
) -> tuple[Finding, ...]:
    """What today's grants have against a deployment: the very decision that registering it again would meet."""
    trigger = Trigger(
        repository=repository,
        repository_id=repository_id,
        server="",
        commit="",
        event=event,
        mode="update" if event == "merge" else "complete",
        version=str(row.get("version")),
        actor="",
    )
    target = next(iter(bakery.bakery.targets)) if bakery else "default"
    request = Request(bakery=where, label=queue, on=[event], target=target)
    schema: Mapping[str, Any] = row.get("parameter_openapi_schema") or {}
    recipes = schema.get("properties", {}).get("recipe", {}).get("enum", [])
    return decide(trigger, request, map(str, recipes), bakeries, today).findings


def without_taken(
    trigger: Trigger,
    decided: Iterable[Decision],
    rows: Iterable[Mapping[str, Any]],
    bakeries: Bakeries,
    today: datetime.date,
) -> list[Decision]:
    """The decisions, with a no where another repository's feedstock of this name runs at the bakery.

    ``rows`` are the deployments of feedstocks of this name. One that is paused or may not run any more holds no name,
    so that a grant to a successor is enough.
    """
    others = [row for row in rows if f"repository:{trigger.repository_id}" not in row["tags"]]
    return [_unless_taken(trigger, decision, others, bakeries, today) for decision in decided]


def _unless_taken(
    trigger: Trigger, decision: Decision, others: Iterable[Mapping[str, Any]], bakeries: Bakeries, today: datetime.date
) -> Decision:
    if not decision.recipes or decision.bakery is None:
        return decision
    pools = {decision.allowed_bakery.work_pool.name: decision.bakery}
    for row in others:
        live = _live({**row, "flow_name": trigger.feedstock}, bakeries, pools, today, ())
        if live is None or live.bakery != decision.bakery.id or live.paused or live.findings:
            continue
        message = f"the feedstock `{trigger.feedstock}` at {live.bakery} is {live.repository}, not {trigger.repository}"
        fix = f"rename the feedstock; if {live.repository} is no more, let the operators delete its deployments"
        taken = Condition("no other repository has this name there", None, TAKEN.at(None, message, fix))
        return replace(decision, conditions=(*decision.conditions, taken), recipes=())
    return decision
