"""Text from outside in Markdown: shown as it is written, whatever it holds.

It may not forge a heading, a link, HTML or a table, nor call somebody by ``@name`` or an issue by ``#1``.
"""

from __future__ import annotations

import html
import re

from .findings import visible

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+!|~&-])")
# GitHub finds mentions, references and addresses in the rendered text, where a backslash no longer protects them.
_CALLS = re.compile(r"(@|(?<!&)#|\bGH-|://|\bwww\.)(?=\w)")
_WORD_JOINER = "\u2060"


def escape(words: str) -> str:
    """Text from outside for a line of Markdown: shown as it is written, whatever it holds."""
    called = _CALLS.sub(rf"\1{_WORD_JOINER}", " ".join(words.split()))
    return _SPECIAL.sub(r"\\\1", called)


def code(words: str) -> str:
    """Text from outside as a code span; the fence is longer than any run of backticks inside."""
    words = " ".join(words.split()) or " "
    fence = "`" * (max((len(run) for run in re.findall(r"`+", words)), default=0) + 1)
    space = " " if "`" in words else ""
    return f"{fence}{space}{words.replace('|', chr(92) + '|')}{space}{fence}"


def block(words: str, language: str = "text") -> str:
    """Lines from outside as a code block; the fence is longer than any run of backticks inside."""
    # A tab is part of what some files mean, and hides nothing.
    shown = "\n".join("\t".join(map(visible, line.split("\t"))) for line in words.splitlines())
    fence = "`" * max(3, max((len(run) for run in re.findall(r"`+", shown)), default=0) + 1)
    return f"{fence}{language}\n{shown}\n{fence}"


def details(summary: str, body: str) -> str:
    """A part that a reader opens; ``summary`` is HTML-escaped text, ``body`` Markdown."""
    return f"<details><summary>{html.escape(summary, quote=False)}</summary>\n\n{body}\n\n</details>"


def sentence(words: str) -> str:
    """A message that quotes in backticks: what is quoted becomes code, everything else is escaped."""
    parts = words.split("`")
    if len(parts) % 2 == 0:
        return escape(words)
    return "".join(code(part) if index % 2 and part else escaped(part) for index, part in enumerate(parts))


def escaped(part: str) -> str:
    """As :func:`escape`, with the spaces at both ends kept, for a part of a line."""
    left = " " if part[:1].isspace() else ""
    right = " " if part[-1:].isspace() and part.strip() else ""
    return f"{left}{escape(part)}{right}"
