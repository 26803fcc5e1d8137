"""What the bakery database must be beyond the types of its files: names that agree, and nobody's folder but his own.

``bakeries/<bakery>/grants/<feedstock>.yaml`` holds a grant; a second label of the same bakery stands in
``<feedstock>.<label>.yaml``. One file a grant, so that granting never conflicts with granting.
"""

from __future__ import annotations

import datetime
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from .. import engines
from ..bakery import BAD_ID, MISNAMED, UNKNOWN_LABEL, Bakeries, BakeryFile, GrantFile, is_bakery_id
from ..findings import Finding, Place, Refused, Severity, Who, did_you_mean, rule
from ..meta import slug
from ..quantities import format_memory

GRANT_TWICE = rule("grant-duplicate", "Of two grants of one label one may be the revocation.", who=Who.OPERATOR)
OVER_LABEL = rule("grant-over-limit", "A grant cannot give what the label does not have.", who=Who.OPERATOR)
GRANT_UNUSED = rule(
    "grant-not-needed",
    "Nobody reads the grant of an open label, and a closed label stays closed.",
    severity=Severity.WARNING,
    who=Who.OPERATOR,
)
LOOK_ALIKE = rule(
    "bakery-id-lookalike", "Who reviews a request reads the id, and must not read another one.", who=Who.OPERATOR
)
SHARED_POOL = rule(
    "bakery-pool-shared", "With one pool for two bakeries the one runs what the other granted.", who=Who.OPERATOR
)
ENDED = rule("grant-ended", "An ended grant grants nothing.", severity=Severity.HINT, who=Who.OPERATOR)
STRAY = rule("bakery-file-stray", "A file that nothing reads looks like consent and is none.", who=Who.OPERATOR)

SOON = datetime.timedelta(days=30)
"""How long before its end a grant is to be renewed."""

_GRANT_NAME = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)(?:\.([a-z0-9]+(?:-[a-z0-9]+)*))?\.yaml", re.ASCII)


def file_name(repository: str, label: str, existing: list[str]) -> str:
    """The name of the file for a new grant: ``<feedstock>.yaml``, or with the label where that is taken."""
    feedstock = slug(repository)
    plain, long = f"{feedstock}.yaml", f"{feedstock}.{label}.yaml"
    return long if long in existing or plain in existing else plain


def misnamed(file: GrantFile) -> Finding | None:
    """The finding for a grant whose file's name does not say what the grant says."""
    path, grant = file.document.path, file.grant
    feedstock = slug(grant.repository)
    match = _GRANT_NAME.fullmatch(path.name)
    if match and match[1] == feedstock and match[2] in (None, grant.label):
        return None
    place = file.document.place(("label",) if match and match[1] == feedstock else ("repository",))
    message = f"{path.name} holds the grant of `{grant.label}` to {grant.repository}"
    return MISNAMED.at(
        place, message, f"name it {feedstock}.yaml, or {feedstock}.{grant.label}.yaml for a second label"
    )


def refuse_id(bakery_id: str, bakeries: Bakeries) -> None:
    """Raise :class:`Refused` for an id that no new bakery may have."""
    if finding := _bad_id(bakery_id, None, bakeries.ids()):
        raise Refused(finding)


def _bad_id(bakery_id: str, place: Place | None, others: Iterable[str]) -> Finding | None:
    """The finding for an id that none may have, or that could be mistaken for one of the others."""
    if not is_bakery_id(bakery_id):
        fix = "write lower-case a-z, digits, `.` and `-`: `ldeo.aws.us-west-2`"
        return BAD_ID.at(place, f"{bakery_id!a} is not a bakery id", fix)
    if other := look_alike(bakery_id, others):
        message = f"`{bakery_id}` looks like `{other}`"
        return LOOK_ALIKE.at(place, message, "choose an id that cannot be mistaken")
    return None


def look_alike(bakery_id: str, ids: Iterable[str]) -> str | None:
    """An id among ``ids`` that a person could take for this one."""
    mine = _skeleton(bakery_id)
    return next((other for other in ids if other != bakery_id and _skeleton(other) == mine), None)


def _skeleton(bakery_id: str) -> str:
    """What is left of an id where letters look alike, after https://www.unicode.org/reports/tr39/#Confusable_Detection.

    Ids are ASCII, so the few pairs that are left there do.
    """
    folded = bakery_id.casefold().translate(str.maketrans("01i-", "oll."))
    return folded.replace("rn", "m").replace("vv", "w").replace("cl", "d")


def check(bakeries: Bakeries, only: str | None = None) -> list[Finding]:
    """Every finding of the bakery database, or of one bakery in it."""
    findings = []
    pools: dict[str, list[BakeryFile]] = defaultdict(list)
    for path in sorted(bakeries.folder.iterdir()):
        if only is not None and path.name != only:
            continue
        if not path.is_dir() or not (path / "bakery.yaml").exists():
            fix = "put a bakery.yaml into a folder of its own"
            findings.append(STRAY.at(Place(str(path)), f"{path.name} is no bakery", fix))
            continue
        findings += check_bakery(bakeries, path.name)
        with suppress(Refused):
            bakery = bakeries.read(path.name)
            pools[bakery.bakery.work_pool.name].append(bakery)
    for pool, sharing in pools.items():
        for bakery in sharing[1:]:
            where = bakery.document.place(("work_pool", "name"))
            message = f"the work pool `{pool}` is {sharing[0].id}'s already"
            findings.append(SHARED_POOL.at(where, message, "give each bakery a work pool of its own"))
    return findings


def check_bakery(bakeries: Bakeries, bakery_id: str) -> list[Finding]:
    """Every finding of a bakery's folder by itself."""
    others = (known for known in bakeries.ids() if known < bakery_id)
    bad = _bad_id(bakery_id, Place(str(bakeries.folder / bakery_id)), others)
    findings = [bad] if bad else []
    if bad and bad.rule is BAD_ID:
        return findings
    try:
        bakery = bakeries.read(bakery_id)
    except Refused as refused:
        return [*findings, *refused.findings, *_alone(bakeries, bakery_id)]
    return [*findings, *engines.check(bakery), *check_grants(bakeries, bakery)]


def _alone(bakeries: Bakeries, bakery_id: str) -> list[Finding]:
    """What is wrong with the grants by themselves, where nobody knows what their bakery has."""
    findings: list[Finding] = []
    for path in bakeries.grants(bakery_id):
        try:
            file = bakeries.read_grant(path)
        except Refused as refused:
            findings += refused.findings
            continue
        findings += [*filter(None, [misnamed(file)]), *_ended(file)]
    return findings


def check_grants(bakeries: Bakeries, bakery: BakeryFile) -> list[Finding]:
    """Every finding of the grants of one bakery."""
    findings = []
    seen: dict[tuple[str, str], Path] = {}
    folder = bakeries.folder / bakery.id / "grants"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix != ".yaml":
            findings.append(STRAY.at(Place(str(path)), f"{path.name} is no grant", "name it <feedstock>.yaml"))
            continue
        try:
            file = bakeries.read_grant(path)
        except Refused as refused:
            findings += refused.findings
            continue
        findings += [*check_grant(bakery, file), *_ended(file)]
        key = (file.grant.repository.lower(), file.grant.label)
        known = seen.setdefault(key, path)
        if known != path:
            message = f"{known.name} grants `{file.grant.label}` to {file.grant.repository} already"
            findings.append(GRANT_TWICE.at(file.document.place(("label",)), message, "remove one of them"))
    return findings


def _ended(file: GrantFile) -> Iterator[Finding]:
    expires = file.grant.expires
    if expires is not None and expires < datetime.datetime.now(datetime.UTC).date():
        place = file.document.place(("expires",))
        yield ENDED.at(place, f"the grant ended on {expires}", "remove the file, or move the date")


def check_grant(bakery: BakeryFile, file: GrantFile) -> list[Finding]:
    """Every finding of one grant, held against its bakery."""
    grant, place = file.grant, file.document.place
    findings = [finding for finding in (misnamed(file),) if finding]
    spec = bakery.bakery.labels.get(grant.label)
    if spec is None:
        fix = did_you_mean(grant.label, list(bakery.bakery.labels))
        return [*findings, UNKNOWN_LABEL.at(place(("label",)), f"{bakery.id} has no label `{grant.label}`", fix)]
    if spec.grants != "on-request":
        message = f"the label `{grant.label}` is {spec.grants}, so nothing reads this grant"
        findings.append(GRANT_UNUSED.at(place(("label",)), message, "remove the file, or set `grants: on-request`"))
    limits, most = grant.limits, spec.limits
    if limits.memory and most.memory and limits.memory > most.memory:
        limit = format_memory(most.memory)
        message = f"the grant gives {format_memory(limits.memory)} of memory; the label has {limit}"
        findings.append(OVER_LABEL.at(place(("limits", "memory")), message, f"write `memory: {limit}` or less"))
    if limits.cpu and most.cpu and limits.cpu > most.cpu:
        message = f"the grant gives {limits.cpu:g} cores; the label has {most.cpu:g}"
        findings.append(OVER_LABEL.at(place(("limits", "cpu")), message, f"write `cpu: {most.cpu:g}` or less"))
    return findings
