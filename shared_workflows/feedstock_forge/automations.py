"""What Prefect does by itself once a run is out of our sight: tell GitHub that it has ended, and end it if it is lost.

Both are Prefect's own automations, found by their names and compared before they are written, so that installing them
twice changes nothing. https://docs.prefect.io/v3/concepts/automations

The token that may dispatch is kept once, in a secret block. A webhook block for each repository holds its address and
*refers* to that block for its headers: who installs a webhook need not know the token, and renewing it is one write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from .findings import Refused, Who, rule
from .prefect import Prefect
from .status import EVENT_TYPE

NO_WEBHOOKS = rule(
    "prefect-webhooks-missing", "Prefect itself tells GitHub that a run has ended.", who=Who.ORGANISATION
)

SLUG, TOKEN = "feedstock-dispatch", "github"
"""The type and the name of the secret block with the token."""
HEARTBEAT = 30
"""Seconds between the signs of life of a run: the least that Prefect allows."""
LOST_AFTER = 300
"""Seconds without a sign of life after which a run counts as lost with its worker."""

_ENDED = [f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut")]
_FIELDS = {
    "title": "Feedstock dispatch",
    "type": "object",
    "properties": {
        "authorization": {"title": "Authorization", "type": "string", "format": "password", "writeOnly": True},
        "accept": {"title": "Accept", "type": "string"},
        "user-agent": {"title": "User agent", "type": "string"},
    },
    "required": ["authorization"],
    "secret_fields": ["authorization"],
    "block_type_slug": SLUG,
    "block_schema_references": {},
}

Done = Literal["created", "updated", "unchanged"]


def keep_token(client: Prefect, token: str) -> None:
    """Keep the token that may send a ``repository_dispatch``, in place of the one before."""
    client.create_block_type("Feedstock dispatch", SLUG, "The headers with which Prefect tells GitHub of ended runs.")
    kind = client.block_type(SLUG)
    schema = client.create_block_schema(kind["id"] if kind else "", _FIELDS)
    headers = {
        "authorization": f"Bearer {token}",
        "accept": "application/vnd.github+json",
        "user-agent": "feedstock-forge",
    }
    client.write_block(SLUG, TOKEN, schema, headers)


def tell_github(client: Prefect, repository: str, repository_id: int, api: str) -> Done | None:
    """Install what tells a repository that one of its runs has ended; ``None`` where no token is kept for it.

    Raises :class:`Refused` if Prefect has no webhooks.
    """
    token = client.block(SLUG, TOKEN)
    if token is None:
        return None
    name = f"feedstock-{repository_id}"
    url = f"{api.rstrip('/')}/repos/{repository}/dispatches"
    description = f"Tells {repository} that one of its runs has ended: POST {url}"
    before = client.automations(name)
    block = client.block("webhook", name)
    # The block's address is a secret to Prefect; the automation's description says which one was written.
    if block is None or not before or before[0]["description"] != description:
        kind = client.block_type("webhook")
        schema = client.block_schema(kind["id"]) if kind else None
        if schema is None:
            fix = "run `prefect block register -m prefect.blocks.webhook` against this server"
            raise Refused(NO_WEBHOOKS.at(None, "Prefect has no block type `webhook`", fix))
        headers = {"$ref": {"block_document_id": token}}
        block = client.write_block("webhook", name, schema, {"method": "POST", "url": url, "headers": headers})
    payload = {"event_type": EVENT_TYPE, "client_payload": {"run": "{{ event.resource.id }}"}}
    return _install(
        client,
        name,
        description,
        {
            "type": "event",
            "posture": "Reactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "match_related": _tagged(f"repository:{repository_id}"),
            "for_each": ["prefect.resource.id"],
            "expect": _ENDED,
            "after": [],
            "threshold": 1,
            "within": 0,
        },
        {"type": "call-webhook", "block_document_id": block, "payload": json.dumps(payload)},
    )


def end_lost_runs(client: Prefect, bakery: str, after: int = LOST_AFTER) -> Done:
    """Install what ends a bakery's runs that give no sign of life for ``after`` seconds: their worker is gone."""
    alive = "prefect.flow-run.heartbeat"
    message = f"lost with its worker: no sign of life for {after} s"
    return _install(
        client,
        f"feedstock-lost-{bakery}",
        f"Ends runs of the bakery {bakery} that were lost with their worker",
        {
            "type": "event",
            "posture": "Proactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "match_related": _tagged(f"bakery:{bakery}"),
            "for_each": ["prefect.resource.id"],
            "expect": [alive, *_ENDED],
            "after": [alive],
            "threshold": 1,
            "within": after,
        },
        {"type": "change-flow-run-state", "state": "CRASHED", "message": message},
    )


def _tagged(tag: str) -> dict[str, str]:
    return {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{tag}"}


def _install(
    client: Prefect, name: str, description: str, trigger: Mapping[str, Any], action: Mapping[str, Any]
) -> Done:
    body = {
        "name": name,
        "description": description,
        "tags": ["feedstock-forge"],
        "trigger": trigger,
        "actions": [action],
    }
    rows = client.automations(name)
    if not rows:
        client.create_automation(body)
        for row in client.automations(name)[1:]:  # somebody installed it at the same moment
            client.delete_automation(row["id"])
        return "created"
    if _same(rows[0], body):
        return "unchanged"
    # Who has switched it off has a reason.
    client.update_automation(rows[0]["id"], {**body, "enabled": rows[0]["enabled"]})
    return "updated"


def _same(row: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether an automation is what it should be; Prefect adds defaults to it, and keeps some lists as sets."""

    def within(found: Any, wanted: Any) -> bool:
        if isinstance(wanted, Mapping):
            return isinstance(found, Mapping) and all(within(found.get(key), value) for key, value in wanted.items())
        if isinstance(wanted, list) and all(isinstance(item, str) for item in wanted):
            return isinstance(found, list) and sorted(found) == sorted(wanted)
        if isinstance(wanted, list):
            return len(found) == len(wanted) and all(map(within, found, wanted))
        return bool(found == wanted)

    return within(row, body)
