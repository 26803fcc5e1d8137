"""The labels that a feedstock asks for, held against the bakery database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..bakery import (
    CLOSED,
    LABEL_CLOSED,
    REQUESTED_TWICE,
    UNKNOWN,
    UNKNOWN_TARGET,
    Bakeries,
    BakeryFile,
    GrantFile,
    over_limit,
    unknown_label,
)
from ..findings import Finding, Place, Refused, Severity, Who, did_you_mean, rule
from ..meta import LabelRequest, Meta
from ..models import shown
from ..yaml_file import Document

GONE = rule(
    "bakery-of-older-form",
    "The bakeries of the first forge are gone: nothing runs until the feedstock asks for one that exists.",
    severity=Severity.WARNING,
    who=Who.MAINTAINER,
)
NOT_GRANTED = rule(
    "label-not-granted",
    "Nothing is registered on a label before its bakery's operators have agreed.",
    severity=Severity.HINT,
    who=Who.MAINTAINER,
)
EVENT_NOT_GRANTED = rule(
    "label-event-not-granted",
    "The operators agreed to some events only; the others register nothing.",
    severity=Severity.WARNING,
    who=Who.MAINTAINER,
)


@dataclass(slots=True)
class Requests:
    """Checks requests; each file of the database is read once, for however many feedstocks."""

    bakeries: Bakeries | None
    known: dict[str, BakeryFile | Refused] = field(default_factory=dict)
    ids: list[str] | None = None

    def check(self, meta: Meta, document: Document) -> Iterator[Finding]:
        """The findings about every request of a feedstock."""
        asked: dict[tuple[str, str], int] = {}
        for index, request in enumerate(meta.bakeries):
            first = asked.setdefault((request.id, request.label), index)
            if first != index:
                line = document.place(("bakeries", first)).line
                message = f"`{request.label}` at `{request.id}` is asked for on line {line} already"
                yield REQUESTED_TWICE.at(document.place(("bakeries", index)), message, "put both `on` into one request")
            elif self.bakeries is not None:
                yield from self._one(meta.id, request, document, index)

    def _one(self, feedstock: str, request: LabelRequest, document: Document, index: int) -> Iterator[Finding]:
        def place(key: str, *more: str) -> Place:
            return document.place(("bakeries", index, key, *more))

        bakery = self._bakery(request.id)
        if isinstance(bakery, Refused):
            for finding in bakery.findings:
                if finding.rule is not UNKNOWN:
                    yield finding  # The bakery's own file is wrong, at a place of its own.
                elif document.moved.get(("bakeries", index)):
                    fix = "ask for one of this forge: `bakeries: [{id: …, label: …, on: [release]}]`, or remove it"
                    yield GONE.at(place("id"), f"this forge has no bakery {shown(request.id)}", fix)
                else:
                    yield UNKNOWN.at(place("id"), finding.message, finding.fix)
            return
        described = bakery.bakery
        if described.closed:
            yield CLOSED.at(place("id"), f"the bakery {bakery.id} is closed", "ask its operators, or another bakery")
        label = described.labels.get(request.label)
        if label is None:
            yield unknown_label(bakery, request.label, place("label"))
            return
        if label.grants == "closed":
            fix = f"ask the operators of {bakery.id}, or for another label"
            yield LABEL_CLOSED.at(place("label"), f"the label `{request.label}` is closed", fix)
        if request.target not in described.targets:
            fix = did_you_mean(request.target, list(described.targets))
            yield UNKNOWN_TARGET.at(place("target"), f"{bakery.id} has no target {shown(request.target)}", fix)
        resources, limits = request.resources, [label.limits]
        if label.grants == "on-request":
            grant = self._grant(bakery.id, request.label, feedstock)
            if grant is None:
                message = f"{bakery.id} has not granted `{request.label}` to {feedstock} yet"
                fix = f"feedstock label request {bakery.id} {request.label}"
                yield NOT_GRANTED.at(place("label"), message, fix)
            else:
                limits.append(grant.grant.limits)
                if others := [event for event in request.on if event not in grant.grant.events]:
                    message = f"{bakery.id} has granted `{request.label}` for {' and '.join(grant.grant.events)} only"
                    fix = f"feedstock label request {bakery.id} {request.label} --on {others[0]}"
                    yield EVENT_NOT_GRANTED.at(place("on"), message, fix)
        for limit in limits:
            if over := over_limit(resources.memory, None, limit, place("resources", "memory")):
                yield over
            if over := over_limit(None, resources.cpu, limit, place("resources", "cpu")):
                yield over

    def _bakery(self, bakery_id: str) -> BakeryFile | Refused:
        assert self.bakeries is not None  # noqa: S101 - for the type checker; callers have looked
        if bakery_id not in self.known:
            try:
                self.known[bakery_id] = self.bakeries.read(bakery_id)
            except Refused as refused:
                self.known[bakery_id] = refused
        return self.known[bakery_id]

    def _grant(self, bakery_id: str, label: str, feedstock: str) -> GrantFile | None:
        assert self.bakeries is not None  # noqa: S101 - for the type checker; callers have looked
        try:
            files = self.bakeries.grants_for(bakery_id, feedstock)
        except Refused:
            return None  # Its operators see why when they lint the forge.
        return next((file for file in files if file.grant.label == label and not file.grant.revoked), None)
