"""Labels by consent: request, grant, explain, enforce, audit.

``consent`` decides, ``grants`` says what the bakery database must be, ``request`` makes both halves of the handshake,
``state`` tells a pull request who has consented, ``audit`` compares Prefect with the grants.
"""

from __future__ import annotations

from .consent import ALL, Condition, Decision, decisions, explain

__all__ = ["ALL", "Condition", "Decision", "decisions", "explain"]
