"""What a dataset says of itself: the inputs that it holds, and which run of which recipe made it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..findings import Refused, rule
from . import PRUNED_INPUTS, Provenance

SHRINKS = rule("prune-would-shrink", "A trial run must not replace a full dataset by its first few inputs.")

INPUTS = "feedstock_inputs"
PROVENANCE = "feedstock_provenance"


def of(inputs: Sequence[str], pruned: bool, provenance: Provenance | None, total: int | None = None) -> dict[str, Any]:
    """The root attributes of a dataset made from ``inputs``, which are some of ``total`` if it is pruned."""
    said = {"count": len(inputs), "sha256": fingerprint(inputs), "pruned": pruned}
    # What a full run would take can be told from that.
    made: dict[str, Any] = {INPUTS: said | ({"of": total} if pruned and total else {})}
    return made | ({PROVENANCE: known(provenance)} if provenance else {})


def inputs_of(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """What root attributes say of the inputs; nothing if they are not ours."""
    inputs = attrs.get(INPUTS)
    return inputs if isinstance(inputs, dict) else {}


def own(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the root attributes that this module writes."""
    return {key: attrs[key] for key in (INPUTS, PROVENANCE) if key in attrs}


def known(provenance: Provenance) -> dict[str, str]:
    """What is known of where a dataset comes from."""
    return {key: value for key, value in asdict(provenance).items() if value is not None}


def fingerprint(urls: Sequence[str]) -> str:
    """The SHA-256 of the URLs, one a line."""
    return hashlib.sha256("\n".join(urls).encode()).hexdigest()


def refuse_shrinking(inputs: Mapping[str, Any], target: str) -> None:
    """Raise :class:`Refused` if a pruned run would replace more inputs than it has itself."""
    count = inputs.get("count", 0)
    if not inputs.get("pruned", False) and count > PRUNED_INPUTS:
        message = f"{target} holds {count} inputs, and a pruned run would replace it by {PRUNED_INPUTS}"
        raise Refused(SHRINKS.at(None, message, "give a pruned run another target"))
