"""Whose turn it is with a recipe's pull request: decided anew each time, from what stands on GitHub.

Pushes, reviews and comments each pass the turn on; the newest of them counts. A word counts for the reviewers only
from somebody who may write to the repository at that moment.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..github import GitHub

CONTEXT = "recipe check"
"""The commit status that says how the check of a recipe's pull request ended."""

REVIEWERS = ("admin", "maintain", "write")


class Turn(StrEnum):
    """Whose turn it is; each is a label of the pull request."""

    CHECKING = "checking"
    CONTRIBUTOR = "awaiting-contributor"
    REVIEWER = "review-requested"
    READY = "ready-to-merge"


@dataclass(frozen=True, slots=True)
class Standing:
    """Whose turn it is, since when, and what passed it on."""

    turn: Turn
    since: datetime.datetime
    because: str


def standing(client: GitHub, repository: str, pull: Mapping[str, Any]) -> Standing:
    """Whose turn it is with a pull request, as GitHub describes it. Raises :class:`Refused` if it cannot be asked."""
    opened = _time(pull["created_at"])
    if pull.get("draft"):
        return Standing(Turn.CONTRIBUTOR, opened, "it is a draft")
    rows = [row for row in client.statuses(repository, str(pull["head"]["sha"])) if row["context"] == CONTEXT]
    if not rows or rows[0]["state"] == "pending":
        since = _time(rows[-1]["created_at"]) if rows else opened
        return Standing(Turn.CHECKING, since, "the check has not ended yet")
    if rows[0]["state"] != "success":
        why = str(rows[0]["description"] or "the check failed")
        return Standing(Turn.CONTRIBUTOR, _time(rows[0]["created_at"]), why)
    checked = Standing(Turn.REVIEWER, _time(rows[0]["created_at"]), "the check of the newest commit passed")
    return max([checked, *_said(client, repository, pull)], key=lambda said: said.since)


def _said(client: GitHub, repository: str, pull: Mapping[str, Any]) -> Iterator[Standing]:
    """What people said, each as the standing that it would make."""
    number, author = int(pull["number"]), _person(pull)
    roles: dict[str, bool] = {}

    def reviews(login: str) -> bool:
        if login not in roles:
            roles[login] = client.role(repository, login) in REVIEWERS
        return roles[login]

    for review in client.reviews(repository, number):
        login = _person(review)
        if not login or login == author or not review.get("submitted_at") or not reviews(login):
            continue
        when = _time(review["submitted_at"])
        if review["state"] == "APPROVED" and review["commit_id"] == pull["head"]["sha"]:
            yield Standing(Turn.READY, when, f"{login} approved")
        elif review["state"] in ("CHANGES_REQUESTED", "COMMENTED"):
            asked = "asked for changes" if review["state"] == "CHANGES_REQUESTED" else "commented"
            yield Standing(Turn.CONTRIBUTOR, when, f"{login} {asked}")
    for comment in client.comments(repository, number):
        login = _person(comment)
        if not login or (comment["user"] or {}).get("type") == "Bot" or (comment.get("body") or "").startswith("/"):
            continue
        if login == author:
            yield Standing(Turn.REVIEWER, _time(comment["created_at"]), f"{login} answered")
        elif reviews(login):
            yield Standing(Turn.CONTRIBUTOR, _time(comment["created_at"]), f"{login} commented")


def label(client: GitHub, repository: str, number: int, turn: Turn, present: Sequence[str]) -> None:
    """Let a pull request bear the label of its turn, and of no other turn; its other labels stay."""
    for old in present:
        if old in set(Turn) and old != turn:
            client.remove_label(repository, number, old)
    if turn not in present:
        client.add_labels(repository, number, [turn])


def _person(row: Mapping[str, Any]) -> str:
    return str((row.get("user") or {}).get("login") or "")


def _time(stamp: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(stamp)
