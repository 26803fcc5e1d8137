"""Every request to Prefect is one that the running server documents; the `server` fixture refuses the rest."""

from __future__ import annotations

from typing import Any

import pytest

from feedstock_forge.findings import Refused
from support import prefect

WRONG: dict[str, tuple[str, str, Any, str]] = {
    "an endpoint that is not there": ("POST", "/flows/search", {}, "POST /flows/search is not documented"),
    "a method that is not there": ("PUT", "/flows/", {}, "PUT /flows/ is not documented"),
    "a query that is not there": ("GET", "/work_pools/local?fields=id", None, "documents no query fields"),
    "a field that is not there": ("POST", "/flows/", {"name": "x", "colour": "red"}, "'colour' was unexpected"),
    "a field that a filter would ignore": ("POST", "/flows/filter", {"limit": 1, "ofset": 2}, "'ofset' was unexpected"),
    "a field that is missing": ("POST", "/flows/", {}, "'name' is a required property"),
    "a value of another type": ("POST", "/flows/filter", {"limit": "many"}, "'many' is not"),
    "a body where there is none": ("GET", "/work_pools/local", {"x": 1}, "documents no body"),
}


@pytest.mark.parametrize("what", sorted(WRONG))
def test_the_contract_refuses(what: str, server: prefect.Server) -> None:
    method, path, body, says = WRONG[what]
    with server.client() as client, pytest.raises(Refused) as caught:
        client.request(method, path, body)
    assert "contract" in str(caught.value.findings[0].message)
    assert says in caught.value.findings[0].message


def test_everything_that_the_client_can_ask_is_documented(server: prefect.Server) -> None:
    """The other tests ask most of it in passing; this asks all of it."""
    identity = "00000000-0000-0000-0000-000000000000"
    with server.client() as client:
        assert client.flows(["nobody"]) == {}
        assert list(client.deployments_tagged("nobody")) == []
        assert list(client.runs(["none"])) == []
        assert client.known_keys(["none"] * 200) == set()
        assert list(client.runs_by_id([identity])) == []
        assert client.last_logs(identity) == []
        assert client.work_pool("nobody") is None
        client.create_work_pool("contract", "process", "for a test")
        client.create_work_pool("contract", "process", "for a test")
        client.create_work_queue("contract", "dev")
        assert "dev" in client.work_queues("contract")
        flow = client.create_flow("contract.test")
        deployment = client.create_deployment({"name": "contract.dev", "flow_id": flow, "entrypoint": "a.b"})
        client.create_runs(deployment, [{"name": "one", "idempotency_key": "contract/one"}])
        assert [run["name"] for run in client.runs(["contract/one"])] == ["one"]
