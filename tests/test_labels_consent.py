"""Consent: what explains and what enforces agree, and both say no exactly where they must."""

from __future__ import annotations

import datetime
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedstock_forge import labels, register
from feedstock_forge.bakery import Bakeries
from feedstock_forge.plan import Plan, PlannedRecipe, Request
from feedstock_forge.trigger import Trigger

TODAY = datetime.date(2026, 6, 1)
GIB = 2**30
NAME, ID = "pangeo-forge/sst-feedstock", 7
RECIPES = ("a", "b")


@dataclass
class Grant:
    """A grant file, right unless a test says otherwise."""

    file: str = "sst.yaml"
    repository: str = NAME
    repository_id: int = ID
    label: str = "prod"
    recipes: list[str] = field(default_factory=lambda: ["*"])
    events: list[str] = field(default_factory=lambda: ["release", "merge"])
    memory: int | None = None
    expires: str | None = "2027-01-01"
    revoked: bool = False

    def text(self) -> str:
        values: dict[str, Any] = {
            "repository": self.repository,
            "repository_id": self.repository_id,
            "label": self.label,
            "recipes": self.recipes,
            "events": self.events,
        }
        if self.memory:
            values["limits"] = {"memory": f"{self.memory} GiB"}
        if self.expires:
            values["expires"] = self.expires
        if self.revoked:
            values["revoked"] = True
        return json.dumps(values)


@dataclass
class Case:
    """A whole situation: what the bakery says, what the feedstock asks, who acts."""

    closed: bool = False
    grants: str = "on-request"
    label_memory: int | None = None
    files: list[Grant] = field(default_factory=lambda: [Grant()])
    repository: str = NAME
    repository_id: int = ID
    event: Any = "release"
    on: tuple[Any, ...] = ("release", "merge")
    bakery: str = "ldeo"
    label: str = "prod"
    target: str = "default"
    memory: int | None = None

    def write(self, folder: Path) -> Bakeries:
        """Write the bakery database."""
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "ldeo" / "grants").mkdir(parents=True)
        limits = {"memory": f"{self.label_memory} GiB"} if self.label_memory else {}
        described = {
            "description": "LDEO",
            "operators": [{"github": "ada"}],
            "work_pool": {"name": "ldeo", "type": "process"},
            "labels": {"prod": {"grants": self.grants, "limits": limits}},
            "targets": {"default": {"url": "s3://ldeo"}},
            "closed": self.closed,
        }
        (folder / "ldeo" / "bakery.yaml").write_text(json.dumps(described))
        for grant in self.files:
            (folder / "ldeo" / "grants" / grant.file).write_text(grant.text())
        return Bakeries.at(folder)

    @property
    def trigger(self) -> Trigger:
        mode: Any = "complete" if self.event == "release" else "update"
        return Trigger(
            self.repository, self.repository_id, "https://github.com", "0" * 40, self.event, mode, "v1", "ada"
        )

    @property
    def requests(self) -> list[Request]:
        memory = self.memory * GIB if self.memory else None
        on = list(self.on)
        return [Request(bakery=self.bakery, label=self.label, on=on, target=self.target, memory=memory, line=20)]

    def plan(self) -> Plan:
        trigger = self.trigger
        return Plan(
            repository=trigger.repository,
            commit=trigger.commit,
            event=trigger.event,
            mode=trigger.mode,
            version=trigger.version,
            feedstock="sst",
            dataset_version="1.0",
            title="",
            recipes=[PlannedRecipe(id=recipe) for recipe in RECIPES],
            bakeries=self.requests,
        )

    def explained(self, bakeries: Bakeries) -> labels.Decision:
        return labels.explain(self.trigger, self.requests, "ldeo", "prod", RECIPES, bakeries, TODAY)

    def expected(self) -> tuple[str, ...]:
        """Which recipes may run, said once more and in another way than the code says it."""
        if self.bakery != "ldeo" or self.label != "prod" or self.target != "default" or self.event not in self.on:
            return ()
        if self.closed or self.grants == "closed" or (self.memory or 0) > (self.label_memory or 10**6):
            return ()
        if self.grants == "open":
            return RECIPES
        mine = [grant for grant in self.files if grant.file in ("sst.yaml", "sst.prod.yaml") and grant.label == "prod"]
        if len(mine) != 1:
            return ()
        (grant,) = mine
        holds = (
            grant.repository == self.repository
            and grant.repository_id == self.repository_id
            and self.event in grant.events
            and not grant.revoked
            and (grant.expires or "9999") >= TODAY.isoformat()
            and (self.memory or 0) <= (grant.memory or 10**6)
        )
        return tuple(recipe for recipe in RECIPES if "*" in grant.recipes or recipe in grant.recipes) if holds else ()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made) / "bakeries"


# Mostly what allows, so that one no at a time decides.
def rarely(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([usual] * 6 + list(others))


EVENTS = (["release"], ["merge"])
grants = st.builds(
    Grant,
    file=rarely("sst.yaml", "sst.prod.yaml", "other.yaml"),
    repository=rarely(NAME, "evil/sst-feedstock"),
    repository_id=rarely(ID, 8),
    label=rarely("prod", "dev"),
    recipes=rarely(["*"], ["a"], ["b", "c"], ["c"]),
    events=rarely(["release", "merge"], *EVENTS),
    memory=rarely(None, 2, 8),
    expires=rarely("2027-01-01", None, "2026-05-31", "2026-06-01"),
    revoked=rarely(False, True),
)
cases = st.builds(
    Case,
    closed=rarely(False, True),
    grants=rarely("on-request", "open", "closed"),
    label_memory=rarely(None, 4),
    files=st.lists(grants, min_size=1, max_size=2, unique_by=lambda grant: grant.file) | rarely([Grant()], []),
    repository=rarely(NAME, "evil/sst-feedstock"),
    repository_id=rarely(ID, 8),
    event=st.sampled_from(["release", "merge"]),
    on=rarely(("release", "merge"), ("release",), ("merge",)),
    bakery=rarely("ldeo", "LDEO", "Ideo"),
    label=rarely("prod", "dev"),
    target=rarely("default", "../.."),
    memory=rarely(None, 1, 3, 6, 16),
)


THOROUGHLY = settings(max_examples=10_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@given(case=cases)
@settings(THOROUGHLY, max_examples=1500)
def test_explaining_and_registering_agree(folder: Path, case: Case) -> None:
    agree(folder, case)


@pytest.mark.slow
@pytest.mark.timeout(900)
@given(case=cases)
@THOROUGHLY
def test_explaining_and_registering_agree_on_ten_thousand_cases(folder: Path, case: Case) -> None:
    agree(folder, case)


def agree(folder: Path, case: Case) -> None:
    bakeries = case.write(folder)
    explained = case.explained(bakeries)
    decided = register.decisions(case.trigger, case.plan(), bakeries, TODAY)
    registered = register.deployments(case.trigger, case.plan(), decided)
    may = tuple(run.recipe for deployment in registered for run in deployment.runs)
    assert may == explained.recipes == case.expected()
    assert bool(explained.findings) == (may != RECIPES)
    assert all(finding.fix for finding in explained.findings)


REFUSED: dict[str, tuple[Case, str]] = {
    "no grant": (Case(files=[]), "grant-missing"),
    "a repository that took over a granted name": (Case(repository_id=8), "grant-other-repository"),
    "a fork of the same name": (Case(repository="evil/sst-feedstock"), "grant-other-repository"),
    "a grant whose file has another feedstock's name": (
        Case(files=[Grant(repository="pangeo-forge/other-feedstock")]),
        "grant-other-repository",
    ),
    "a grant whose file has another label's name": (Case(files=[Grant(file="sst.dev.yaml")]), "grant-misnamed"),
    "two grants of one label, one of them revoked": (
        Case(files=[Grant(revoked=True), Grant(file="sst.prod.yaml")]),
        "grant-duplicate",
    ),
    "an expired grant": (Case(files=[Grant(expires="2026-05-31")]), "grant-expired"),
    "a revoked grant": (Case(files=[Grant(revoked=True)]), "grant-revoked"),
    "an event that was not granted": (Case(files=[Grant(events=["merge"])]), "grant-other-event"),
    "a recipe that was not granted": (Case(files=[Grant(recipes=["c"])]), "grant-other-recipe"),
    "more memory than the grant gives": (Case(memory=8, files=[Grant(memory=4)]), "resources-over-limit"),
    "more memory than the label has": (Case(memory=8, label_memory=4), "resources-over-limit"),
    "a closed bakery": (Case(closed=True), "bakery-closed"),
    "a closed label": (Case(grants="closed"), "label-closed"),
    "an unknown target": (Case(target="../.."), "target-unknown"),
    "a grant that names a parent folder": (Case(files=[Grant(repository="pangeo-forge/..")]), "value-invalid"),
    "a label that meta.yaml does not ask for": (Case(label="dev"), "label-not-asked"),
    "an event that meta.yaml does not ask for": (Case(on=("merge",)), "label-not-asked"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_each_no_has_its_id_its_place_and_its_fix(tmp_path: Path, why: str) -> None:
    case, expected = REFUSED[why]
    decision = case.explained(case.write(tmp_path / "bakeries"))
    found = {finding.id: finding for finding in decision.findings}
    assert decision.recipes == ()
    assert set(found) == {expected}
    assert found[expected].place is not None
    assert found[expected].fix


@pytest.mark.parametrize("name", ["LDEO", "ld\u0435\u043e", "ldeo ", "../ldeo", "ldeo/../ldeo", ""], ids=ascii)
def test_an_id_that_only_looks_like_a_bakerys_is_no_bakery(tmp_path: Path, name: str) -> None:
    case = Case(bakery=name)
    decision = labels.explain(
        case.trigger, case.requests, name, "prod", RECIPES, case.write(tmp_path / "bakeries"), TODAY
    )
    assert [finding.id for finding in decision.findings] == ["bakery-unknown"]
    assert decision.recipes == ()


def test_a_grant_that_leads_out_of_the_database_is_not_read(tmp_path: Path) -> None:
    case = Case(files=[])
    bakeries = case.write(tmp_path / "bakeries")
    outside = tmp_path / "sst.yaml"
    outside.write_text(Grant().text())
    (tmp_path / "bakeries" / "ldeo" / "grants" / "sst.yaml").symlink_to(outside)
    decision = case.explained(bakeries)
    assert [finding.id for finding in decision.findings] == ["file-outside"]
    assert decision.recipes == ()


def test_asking_twice_for_one_label_and_event_is_refused_and_names_both_lines(tmp_path: Path) -> None:
    case = Case()
    twice = [*case.requests, case.requests[0].model_copy(update={"line": 24, "target": "default"})]
    decided = labels.decisions(case.trigger, twice, RECIPES, case.write(tmp_path / "bakeries"), TODAY)
    assert [finding.id for decision in decided for finding in decision.findings] == ["label-requested-twice"]
    assert "lines 20 and 24" in decided[0].findings[0].message


def test_a_grant_for_some_recipes_allows_those_and_names_the_others(tmp_path: Path) -> None:
    case = Case(files=[Grant(recipes=["a"])])
    decision = case.explained(case.write(tmp_path / "bakeries"))
    assert decision.recipes == ("a",)
    assert [finding.id for finding in decision.findings] == ["grant-other-recipe"]
    assert decision.findings[0].fix == "feedstock label request ldeo prod --recipes b"
