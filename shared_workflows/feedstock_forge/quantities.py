"""Amounts with a unit, as people write them: ``8 GiB``, ``2`` cores, ``30 min``."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from .findings import rule
from .models import invalid, shown

AMOUNT = rule("amount-invalid", "4096 of what? A number without its unit is read differently by everybody.")

_MEMORY = {
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_TIME = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_AMOUNT = re.compile(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]+)\s*", re.ASCII)


def _amount(value: Any, units: dict[str, int], example: str) -> int:
    match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise invalid(
            f"{shown(value)} is not an amount",
            f"write a number and one of {', '.join(units)}, such as `{example}`",
            AMOUNT,
        )
    amount = round(float(match[1]) * units[match[2]])
    if amount <= 0:
        raise invalid(f"{shown(value)} is nothing", f"write more than zero, such as `{example}`", AMOUNT)
    return amount


def _format(amount: int, units: dict[str, int]) -> str:
    unit, factor = max(((unit, size) for unit, size in units.items() if amount % size == 0), key=lambda pair: pair[1])
    return f"{amount // factor} {unit}"


def format_memory(amount: int) -> str:
    """Bytes for people, in the largest binary unit that divides them: ``8 GiB``."""
    return _format(amount, {unit: size for unit, size in _MEMORY.items() if "i" in unit or unit == "B"})


def format_size(size: float) -> str:
    """Bytes that were measured, to three figures: ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:,.0f} PiB"


def format_duration(seconds: int) -> str:
    """Seconds for people, in the largest unit that divides them: ``30 min``."""
    return _format(seconds, _TIME)


Memory = Annotated[
    int,
    BeforeValidator(lambda value: _amount(value, _MEMORY, "8 GiB")),
    PlainSerializer(format_memory, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(B|[KMGT]i?B)\s*$", "examples": ["8 GiB"]}),
]
"""Memory in bytes; written as ``8 GiB``."""

Duration = Annotated[
    int,
    BeforeValidator(lambda value: _amount(value, _TIME, "30 min")),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(s|min|h|d)\s*$", "examples": ["30 min"]}),
]
"""A span of time in seconds; written as ``30 min``."""

Cores = Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False, examples=[2])]
"""Processor cores; half a core is ``0.5``."""
