"""Credentials as the environment holds them: what was pasted with them is taken off, and none is ever quoted."""

from __future__ import annotations

from collections.abc import Mapping

from .findings import Refused, Rule


def secret(environment: Mapping[str, str], *names: str, refused: Rule) -> str | None:
    """The first of these variables that holds something, without the line break that pasting leaves behind it.

    Raises :class:`Refused` by the rule ``refused`` for what no header of HTTP can carry: a library that tries would
    quote it.
    """
    for name in names:
        if value := environment.get(name, "").strip():
            if not (value.isascii() and value.isprintable()):
                fix = "copy it anew: letters, digits and signs of one line, without quotation marks"
                raise Refused(refused.at(None, f"{name} holds characters that no credential has", fix))
            return value
    return None
