"""Labels by consent: may this feedstock run at this bakery on this label, for this event?

Two consents meet here. The feedstock asks (``meta.yaml``, reviewed by its maintainers); the bakery grants
(``bakeries/<bakery>/grants``, reviewed by its operators). :func:`decide` checks every condition and keeps the answers,
so that what enforces and what explains are one piece of code.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field

from .bakery import (
    CLOSED,
    LABEL_CLOSED,
    UNKNOWN_TARGET,
    Bakeries,
    Bakery,
    BakeryFile,
    GrantFile,
    LabelSpec,
    Limits,
    over_limit,
    unknown_label,
)
from .findings import Finding, Place, Refused, Who, rule
from .models import did_you_mean
from .plan import Request
from .trigger import Trigger

NO_GRANT = rule("grant-missing", "A bakery runs only what its operators have agreed to.", who=Who.OPERATOR)
OTHER_REPOSITORY = rule(
    "grant-other-repository",
    "Names can be re-used and repositories transferred; a grant is to the repository that was reviewed.",
    who=Who.OPERATOR,
)
REVOKED = rule("grant-revoked", "The operators have taken their consent back.", who=Who.OPERATOR)
EXPIRED = rule("grant-expired", "Consent is for a time, so that nobody has to remember to end it.", who=Who.OPERATOR)
OTHER_EVENT = rule("grant-other-event", "The operators agreed to some events only.", who=Who.OPERATOR)
OTHER_RECIPE = rule("grant-other-recipe", "The operators agreed to some recipes only.", who=Who.OPERATOR)

ALL = "*"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of consent: what was asked, where the answer stands, and the finding if it is no."""

    what: str
    place: Place | None
    finding: Finding | None = None

    @property
    def holds(self) -> bool:
        """Whether the condition is met."""
        return self.finding is None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request is allowed, for which recipes, and every condition that was looked at."""

    request: Request
    conditions: tuple[Condition, ...]
    recipes: tuple[str, ...] = ()
    """The recipes that may run; empty if none may."""
    bakery: BakeryFile | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """``<bakery>.<label>``, which is also the deployment's name."""
        return f"{self.request.bakery}.{self.request.label}"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Why it is not allowed, or not for every recipe."""
        return tuple(condition.finding for condition in self.conditions if condition.finding)

    @property
    def allowed_bakery(self) -> Bakery:
        """The bakery; only a decision that allows something is sure to have one."""
        if self.bakery is None:
            raise LookupError(f"{self.name} was refused")
        return self.bakery.bakery

    @property
    def allowed_label(self) -> LabelSpec:
        """The label as the bakery describes it; only a decision that allows something is sure to have one."""
        return self.allowed_bakery.labels[self.request.label]


def decide(
    trigger: Trigger,
    request: Request,
    recipes: Iterable[str],
    bakeries: Bakeries,
    today: datetime.date,
    *,
    meta: Place | None = None,
) -> Decision:
    """Decide one request of a feedstock. Never raises for a refusal: the answer holds it.

    ``meta`` is the place in the feedstock's ``meta.yaml`` that asks.
    """
    wanted = tuple(recipes)
    try:
        bakery = bakeries.read(request.bakery)
    except Refused as refused:
        return Decision(request, tuple(Condition("the bakery exists", meta, finding) for finding in refused.findings))
    spec = bakery.bakery.labels.get(request.label)
    place = bakery.document.place(("labels", request.label))
    if spec is None:
        finding = unknown_label(bakery, request.label, meta)
        return Decision(request, (Condition("the label exists", meta, finding),), bakery=bakery)
    conditions = [
        Condition("the bakery exists", bakery.document.place()),
        Condition("the label exists", place),
        _open(bakery, spec, place),
        _target(bakery, request, meta),
    ]
    allowed = wanted
    limits = [(spec.limits, place)]
    if spec.grants == "on-request":
        granted, allowed, limit = _granted(trigger, request, wanted, bakery, bakeries, today)
        conditions += granted
        limits += limit
    conditions += [_within(request, limit, where, meta) for limit, where in limits]
    # A grant that names only some of the recipes allows those; every other no is a no to all of them.
    denied = any(condition.finding and condition.finding.rule is not OTHER_RECIPE for condition in conditions)
    return Decision(request, tuple(conditions), () if denied else allowed, bakery)


def _open(bakery: BakeryFile, spec: LabelSpec, place: Place) -> Condition:
    what = "the bakery and the label are open"
    described: Bakery = bakery.bakery
    if described.closed:
        where = bakery.document.place(("closed",))
        return Condition(what, where, CLOSED.at(where, f"the bakery {bakery.id} is closed", "ask its operators"))
    if spec.grants == "closed":
        return Condition(
            what, place, LABEL_CLOSED.at(place, "the label is closed", f"ask the operators of {bakery.id}")
        )
    return Condition(what, place)


def _target(bakery: BakeryFile, request: Request, meta: Place | None) -> Condition:
    what = f"the target `{request.target}` exists"
    if request.target in bakery.bakery.targets:
        return Condition(what, bakery.document.place(("targets", request.target)))
    fix = did_you_mean(request.target, list(bakery.bakery.targets))
    return Condition(what, meta, UNKNOWN_TARGET.at(meta, f"{bakery.id} has no target `{request.target}`", fix))


def _granted(
    trigger: Trigger,
    request: Request,
    wanted: tuple[str, ...],
    bakery: BakeryFile,
    bakeries: Bakeries,
    today: datetime.date,
) -> tuple[list[Condition], tuple[str, ...], list[tuple[Limits, Place]]]:
    """The conditions of a grant, the recipes that it covers, and its limits."""
    ask = f"feedstock label request {request.bakery} {request.label}"
    what = f"{bakery.id} has granted `{request.label}` to {trigger.repository}"
    try:
        files = bakeries.grants_for(bakery.id, trigger.feedstock)
    except Refused as refused:
        return [Condition(what, finding.place, finding) for finding in refused.findings], (), []
    file = next((file for file in files if file.grant.label == request.label), None)
    if file is None:
        where = bakery.document.place(("labels", request.label))
        message = f"{bakery.id} has granted {trigger.repository} no `{request.label}`"
        return [Condition(what, where, NO_GRANT.at(where, message, ask))], (), []
    grant, place = file.grant, file.document.place
    conditions = [_same_repository(trigger, file, what, ask)]
    revoked = REVOKED.at(place(("revoked",)), "the grant is revoked", ask) if grant.revoked else None
    conditions.append(Condition("the grant is not revoked", place(("revoked",)), revoked))
    expired = None
    if grant.expires and grant.expires < today:
        expired = EXPIRED.at(place(("expires",)), f"the grant ended on {grant.expires}", ask)
    conditions.append(Condition("the grant has not expired", place(("expires",)), expired))
    event = None
    if trigger.event not in grant.events:
        event = OTHER_EVENT.at(
            place(("events",)),
            f"the grant is for {' and '.join(grant.events)}, not {trigger.event}",
            f"{ask} --on {trigger.event}",
        )
    conditions.append(Condition(f"the grant is for `{trigger.event}`", place(("events",)), event))
    covered = tuple(recipe for recipe in wanted if ALL in grant.recipes or recipe in grant.recipes)
    others = [recipe for recipe in wanted if recipe not in covered]
    missing = None
    if others:
        named = ", ".join(others[:10]) + (f" and {len(others) - 10} more" if len(others) > 10 else "")
        missing = OTHER_RECIPE.at(
            place(("recipes",)), f"the grant does not name {named}", f"{ask} --recipes {others[0]}"
        )
    conditions.append(Condition("the grant names the recipes", place(("recipes",)), missing))
    return conditions, covered, [(grant.limits, place(("limits",)))]


def _same_repository(trigger: Trigger, file: GrantFile, what: str, ask: str) -> Condition:
    grant, place = file.grant, file.document.place
    if grant.repository.lower() != trigger.repository.lower():
        where = place(("repository",))
        message = f"the grant is to {grant.repository}, not to {trigger.repository}"
        return Condition(what, where, OTHER_REPOSITORY.at(where, message, ask))
    if grant.repository_id != trigger.repository_id:
        where = place(("repository_id",))
        message = (
            f"the grant is to repository {grant.repository_id}; {trigger.repository} is {trigger.repository_id} now"
        )
        return Condition(what, where, OTHER_REPOSITORY.at(where, message, ask))
    return Condition(what, place())


def _within(request: Request, limits: Limits, place: Place, meta: Place | None) -> Condition:
    finding = over_limit(request.memory, request.cpu, limits, meta or place)
    return Condition("the resources are within the limits", place, finding)
