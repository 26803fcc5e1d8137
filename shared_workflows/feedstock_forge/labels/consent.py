"""Labels by consent: may this feedstock run at this bakery on this label, for this event?

Two consents meet here. The feedstock asks (``meta.yaml``, reviewed by its maintainers); the bakery grants
(``bakeries/<bakery>/grants``, reviewed by its operators). :func:`decide` checks every condition and keeps the answers,
so that what enforces (:func:`decisions`) and what explains (:func:`explain`) are one piece of code.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ..bakery import (
    CLOSED,
    LABEL_CLOSED,
    REQUESTED_TWICE,
    UNKNOWN,
    UNKNOWN_LABEL,
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
from ..findings import Finding, Place, Refused, Who, did_you_mean, rule
from ..meta import FILE, FOLDER
from ..plan import Request
from ..trigger import Trigger
from .grants import GRANT_TWICE, misnamed

NOT_ASKED = rule("label-not-asked", "A bakery runs a feedstock only where its own maintainers ask.", who=Who.MAINTAINER)

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
    limits: Limits = field(default_factory=Limits)
    """What one run may take: what was asked for, or as much as the label and the grant allow."""

    @property
    def name(self) -> str:
        """``<bakery>.<label>``, which is also the deployment's name."""
        return f"{self.request.bakery}.{self.request.label}"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Why it is not allowed, or not for every recipe."""
        return tuple(condition.finding for condition in self.conditions if condition.finding)

    @property
    def first(self) -> Finding | None:
        """The finding to act on first: asking is in vain where there is nobody who could say yes."""
        vain = (UNKNOWN, UNKNOWN_LABEL, CLOSED, LABEL_CLOSED)
        return next((item for item in self.findings if item.rule in vain), next(iter(self.findings), None))

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


def decisions(
    trigger: Trigger, requests: Sequence[Request], recipes: Iterable[str], bakeries: Bakeries, today: datetime.date
) -> list[Decision]:
    """Decide every label that a feedstock asks for on this event: what :mod:`feedstock_forge.register` enforces."""
    wanted = tuple(recipes)
    asked = dict.fromkeys((request.bakery, request.label) for request in requests if trigger.event in request.on)
    return [explain(trigger, requests, bakery, label, wanted, bakeries, today) for bakery, label in asked]


def explain(
    trigger: Trigger,
    requests: Sequence[Request],
    bakery: str,
    label: str,
    recipes: Iterable[str],
    bakeries: Bakeries,
    today: datetime.date,
) -> Decision:
    """Decide one label, asked for or not: the bakery's conditions are looked at either way.

    ``requests`` are all that the feedstock asks for; ``recipes`` may be ``*`` where they are not known. Never raises
    for a refusal: the answer holds it.
    """
    ask = f"feedstock label request {bakery} {label}"
    named = [request for request in requests if (request.bakery, request.label) == (bakery, label)]
    suiting = [request for request in named if trigger.event in request.on]
    request = next(iter(suiting or named), Request(bakery=bakery, label=label, on=[trigger.event], target="default"))
    place = _asking(request)
    missing = None
    if not named:
        message = f"meta.yaml asks for no `{label}` at {bakery}"
        missing = NOT_ASKED.at(place, message, ask)
    elif not suiting:
        message = f"meta.yaml asks for {' and '.join(request.on)}, not {trigger.event}"
        missing = NOT_ASKED.at(place, message, f"{ask} --on {trigger.event}")
    elif len(suiting) > 1:
        lines = " and ".join(str(other.line) for other in suiting)
        message = f"meta.yaml asks {len(suiting)} times for `{label}` at {bakery} on {trigger.event} (lines {lines})"
        missing = REQUESTED_TWICE.at(place, message, "keep one of them")
    asked = Condition(f"meta.yaml asks for it on `{trigger.event}`", place, missing)
    decision = decide(trigger, request, recipes, bakeries, today)
    conditions = (asked, *decision.conditions)
    return replace(decision, conditions=conditions, recipes=decision.recipes if asked.holds else ())


def decide(
    trigger: Trigger, request: Request, recipes: Iterable[str], bakeries: Bakeries, today: datetime.date
) -> Decision:
    """Decide the bakery's half for one request. Never raises for a refusal: the answer holds it."""
    wanted = tuple(recipes)
    meta = _asking(request)
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
    limits = [("the label's", spec.limits, place)]
    if spec.grants == "on-request":
        granted, allowed, limit = _granted(trigger, request, wanted, bakery, bakeries, today)
        conditions += granted
        limits += limit
    conditions += [_within(request, whose, limit, where, meta) for whose, limit, where in limits]
    # A grant that names only some of the recipes allows those; every other no is a no to all of them.
    denied = any(condition.finding and condition.finding.rule is not OTHER_RECIPE for condition in conditions)
    tightest = _tightest(request, [limit for _, limit, _ in limits])
    return Decision(request, tuple(conditions), () if denied else allowed, bakery, tightest)


def _tightest(request: Request, limits: list[Limits]) -> Limits:
    return Limits.model_construct(
        memory=request.memory or min((limit.memory for limit in limits if limit.memory), default=None),
        cpu=request.cpu or min((limit.cpu for limit in limits if limit.cpu), default=None),
        runtime=min((limit.runtime for limit in limits if limit.runtime), default=None),
    )


def _asking(request: Request) -> Place:
    """Where the feedstock asks; relative to its root, since the plan may come from another machine."""
    return Place(f"{FOLDER}/{FILE}", request.line)


def _open(bakery: BakeryFile, spec: LabelSpec, place: Place) -> Condition:
    what = "the bakery and the label are open"
    described: Bakery = bakery.bakery
    operators = ", ".join(f"@{operator.github}" for operator in described.operators)
    if described.closed:
        where = bakery.document.place(("closed",))
        return Condition(what, where, CLOSED.at(where, f"the bakery {bakery.id} is closed", f"ask {operators}"))
    if spec.grants == "closed":
        message = f"{bakery.id} has closed the label"
        return Condition(what, place, LABEL_CLOSED.at(place, message, f"ask {operators}"))
    return Condition(what, place)


def _target(bakery: BakeryFile, request: Request, meta: Place) -> Condition:
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
) -> tuple[list[Condition], tuple[str, ...], list[tuple[str, Limits, Place]]]:
    """The conditions of a grant, the recipes that it covers, and its limits."""
    ask = f"feedstock label request {request.bakery} {request.label}"
    what = f"{bakery.id} has granted `{request.label}` to {trigger.repository}"
    try:
        files = bakeries.grants_for(bakery.id, trigger.feedstock)
    except Refused as refused:
        return [Condition(what, finding.place, finding) for finding in refused.findings], (), []
    granting = [file for file in files if file.grant.label == request.label]
    if not granting:
        where = bakery.document.place(("labels", request.label))
        message = f"{bakery.id} has granted {trigger.repository} no `{request.label}`"
        return [Condition(what, where, NO_GRANT.at(where, message, ask))], (), []
    file = granting[0]
    grant, place = file.grant, file.document.place
    conditions = [Condition(what, place(), _other_repository(trigger, file, ask) or misnamed(file))]
    if len(granting) > 1:
        # One of them might be the revocation of the other.
        where = granting[1].document.place(("label",))
        message = f"{file.document.path.name} and {granting[1].document.path.name} both grant `{request.label}`"
        conditions.append(Condition("one grant speaks", where, GRANT_TWICE.at(where, message, "remove one of them")))
    revoked = REVOKED.at(place(("revoked",)), "the grant is revoked", ask) if grant.revoked else None
    conditions.append(Condition("the grant is not revoked", place(("revoked",)), revoked))
    expired = None
    if grant.expires and grant.expires < today:
        expired = EXPIRED.at(place(("expires",)), f"the grant ended on {grant.expires}", ask)
    until = f"until {grant.expires}" if grant.expires else "without end"
    conditions.append(Condition(f"the grant has not expired ({until})", place(("expires",)), expired))
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
        message = f"the grant does not name {named}"
        missing = OTHER_RECIPE.at(place(("recipes",)), message, f"{ask} --recipes {','.join(others[:10])}")
    conditions.append(Condition("the grant names the recipes", place(("recipes",)), missing))
    return conditions, covered, [("the grant's", grant.limits, place(("limits",)))]


def _other_repository(trigger: Trigger, file: GrantFile, ask: str) -> Finding | None:
    grant, place = file.grant, file.document.place
    if grant.repository.lower() != trigger.repository.lower():
        message = f"the grant is to {grant.repository}, not to {trigger.repository}"
        return OTHER_REPOSITORY.at(place(("repository",)), message, ask)
    if not trigger.repository_id:
        message = f"the grant is to repository {grant.repository_id}; the id of {trigger.repository} is not known here"
        return OTHER_REPOSITORY.at(place(("repository_id",)), message, "pass --repository-id, or let GitHub be reached")
    if grant.repository_id != trigger.repository_id:
        message = (
            f"the grant is to repository {grant.repository_id}; {trigger.repository} is {trigger.repository_id} now"
        )
        return OTHER_REPOSITORY.at(place(("repository_id",)), message, ask)
    return None


def _within(request: Request, whose: str, limits: Limits, place: Place, meta: Place) -> Condition:
    finding = over_limit(request.memory, request.cpu, limits, meta)
    return Condition(f"the resources are within {whose} limits", place, finding)
