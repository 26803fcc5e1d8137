"""A plan and its consents become Prefect deployments and flow runs.

Nothing here imports anything of a feedstock's. What a deployment runs is the forge's own flow; the plan only says
which recipes there are. Deployments are compared before they are written and runs carry idempotency keys, so doing it
twice changes nothing and starting over after a kill completes what is missing.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from . import datasets, labels
from .bakery import Bakeries
from .findings import Finding, Refused, Who, rule
from .job_variables import job_variables
from .labels import Decision
from .plan import Plan
from .prefect import Prefect
from .trigger import Trigger

NO_POOL = rule("pool-missing", "Without its work pool a bakery has nobody who would run anything.", who=Who.OPERATOR)
NO_QUEUE = rule("queue-missing", "Without its work queue nobody listens to the label.", who=Who.OPERATOR)
STOPPED = rule("register-stopped", "Registering stopped half-way; starting it again completes what is missing.")

ENTRYPOINT = "feedstock_forge.flow.bake_recipe"
"""What every deployment runs: see :mod:`feedstock_forge.flow`."""

_COMPARED = (
    "version",
    "description",
    "entrypoint",
    "enforce_parameter_schema",
    "parameters",
    "parameter_openapi_schema",
    "pull_steps",
    "tags",
    "job_variables",
    "work_pool_name",
    "work_queue_name",
)


@dataclass(frozen=True, slots=True)
class Run:
    """One run to start: a recipe, its parameters, and the key that makes starting it twice harmless."""

    recipe: str
    key: str
    name: str
    parameters: dict[str, Any]
    tags: tuple[str, ...] = ()
    """What a report needs to know of the event, beside the deployment's own tags."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment as it should be, and the runs to start of it."""

    feedstock: str
    flow: str
    name: str
    body: dict[str, Any]
    runs: tuple[Run, ...]

    @property
    def full_name(self) -> str:
        """``<flow>/<deployment>``, as Prefect writes it."""
        return f"{self.flow}/{self.name}"


@dataclass(slots=True)
class Outcome:
    """What registering did: deployments by full name, and runs; grows while it works."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    started: list[Run] = field(default_factory=list)
    known: list[Run] = field(default_factory=list)


def decisions(trigger: Trigger, plan: Plan, bakeries: Bakeries, today: datetime.date) -> list[Decision]:
    """Decide every label that the plan asks for on this event."""
    return labels.decisions(trigger, plan.bakeries, [recipe.id for recipe in plan.recipes], bakeries, today)


def deployments(trigger: Trigger, plan: Plan, allowed: Iterable[Decision]) -> list[Deployment]:
    """The deployments that a plan comes to where it is allowed: one a recipe, or one for all of a ``dict_object``."""
    return [
        deployment for decision in allowed if decision.recipes for deployment in _deployments(trigger, plan, decision)
    ]


def run_keys(trigger: Trigger, plan: Plan) -> list[str]:
    """The idempotency keys of every run that a plan may have started, whatever was granted since."""
    return [
        _run_key(trigger, f"{request.bakery}.{request.label}", recipe.id)
        for request in plan.bakeries
        if trigger.event in request.on
        for recipe in plan.recipes
    ]


def _run_key(trigger: Trigger, label: str, recipe: str) -> str:
    parts = (str(trigger.repository_id), trigger.event, trigger.version, trigger.commit, label, recipe, trigger.attempt)
    return "/".join(part for part in parts if part)


def _deployments(trigger: Trigger, plan: Plan, decision: Decision) -> Iterator[Deployment]:
    runs = {recipe: _run(trigger, plan, decision, recipe) for recipe in decision.recipes}
    descriptions = {recipe.id: recipe.description for recipe in plan.recipes}
    if plan.dict_object:
        name = plan.dict_object.split(":")[1]
        yield _deployment(trigger, plan, decision, name, f"{len(runs)} recipes of `{name}`", list(runs.values()))
    else:
        for recipe, run in runs.items():
            yield _deployment(trigger, plan, decision, recipe, descriptions[recipe], [run])


def _run(trigger: Trigger, plan: Plan, decision: Decision, recipe: str) -> Run:
    pruned = decision.allowed_label.prune == "required" or bool(trigger.folder)
    target = decision.allowed_bakery.targets[decision.request.target].url
    store = plan.stores.get(recipe, "icechunk")
    return Run(
        recipe,
        key=_run_key(trigger, decision.name, recipe),
        name=f"{recipe} {trigger.version[:12] if trigger.version == trigger.commit else trigger.version}",
        parameters={
            "recipe": recipe,
            "target": datasets.url(target, plan.feedstock, plan.dataset_version, recipe, store, pruned=pruned),
            "mode": trigger.mode,
            "prune": pruned,
            "repository": trigger.repository,
            "commit": trigger.commit,
            "version": trigger.version,
        },
        tags=(
            f"recipe:{recipe}",
            f"version:{trigger.version}",
            f"event:{trigger.event}",
            *([f"pull-request:{trigger.pull_request}"] if trigger.pull_request else []),
        ),
    )


def _deployment(
    trigger: Trigger, plan: Plan, decision: Decision, recipe: str, description: str, runs: list[Run]
) -> Deployment:
    common = (
        runs[0].parameters
        if len(runs) == 1
        else {key: value for key, value in runs[0].parameters.items() if key not in ("recipe", "target")}
    )
    tags = [
        feedstock_tag(plan.feedstock),
        f"bakery:{decision.request.bakery}",
        f"label:{decision.request.label}",
        # Names can be re-used; `feedstock label audit` holds this id against the grant's.
        f"repository:{trigger.repository_id}",
    ]
    body: dict[str, Any] = {
        "name": decision.name,
        "version": trigger.version,
        "description": "\n\n".join(part for part in (plan.title, description) if part),
        "entrypoint": ENTRYPOINT,
        "enforce_parameter_schema": True,
        "parameters": common,
        "parameter_openapi_schema": parameter_schema([run.recipe for run in runs]),
        "pull_steps": _pull_steps(trigger),
        "tags": tags,
        "job_variables": job_variables(
            decision.allowed_bakery, decision.name, decision.limits, plan.feedstock, trigger.version
        ),
        "work_pool_name": decision.allowed_bakery.work_pool.name,
        "work_queue_name": decision.request.label,
    }
    return Deployment(plan.feedstock, f"{plan.feedstock}.{recipe}", decision.name, body, tuple(runs))


def _pull_steps(trigger: Trigger) -> list[dict[str, Any]]:
    clone = {"id": "clone", "repository": trigger.clone_url, "commit_sha": trigger.commit}
    steps: list[dict[str, Any]] = [{"prefect.deployments.steps.git_clone": clone}]
    if trigger.folder:
        directory = {"directory": f"{{{{ clone.directory }}}}/{trigger.folder}"}
        steps.append({"prefect.deployments.steps.set_working_directory": directory})
    return steps


def parameter_schema(recipes: list[str]) -> dict[str, Any]:
    """The JSON Schema of the parameters of :func:`feedstock_forge.flow.bake_recipe`, for these recipes."""

    def text(title: str, position: int, description: str) -> dict[str, Any]:
        return {"type": "string", "title": title, "position": position, "description": description}

    return {
        "title": "Parameters",
        "type": "object",
        "required": ["recipe", "target", "repository", "commit", "version"],
        "properties": {
            "recipe": {**text("Recipe", 0, "The recipe's id."), "enum": recipes},
            "target": text("Target", 1, "The URL of the dataset."),
            "mode": {
                **text("Mode", 2, "Write all, or append what is new."),
                "enum": ["complete", "update"],
                "default": "complete",
            },
            "prune": {
                "type": "boolean",
                "title": "Prune",
                "position": 3,
                "description": "Take the first few inputs only.",
                "default": False,
            },
            "repository": text("Repository", 4, "The feedstock, as owner/name."),
            "commit": text("Commit", 5, "The commit whose recipe runs."),
            "version": text("Version", 6, "The release tag, or the commit."),
        },
    }


def feedstock_tag(feedstock: str) -> str:
    """The tag of every deployment of a feedstock."""
    return f"feedstock:{feedstock}"


def register(
    client: Prefect,
    wanted: list[Deployment],
    standing: list[dict[str, Any]] | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
    dry_run: bool = False,
) -> Outcome:
    """Make the deployments and start the runs that are missing; nothing else is touched.

    ``standing`` are the deployments with the :func:`feedstock_tag`, asked for if the caller has not. A registration
    that changes nothing makes three requests, that one among them. Raises :class:`Refused`, with what was done and what
    was not, if Prefect refuses or stays away; running it again goes on from there. With ``dry_run`` the outcome says
    what would be done.
    """
    outcome = Outcome()
    if not wanted:
        return outcome
    try:
        _register(client, wanted, standing, outcome, say, dry_run)
    except Refused as refused:
        raise Refused(*refused.findings, _stopped(wanted, outcome)) from None
    return outcome


def _register(
    client: Prefect,
    wanted: list[Deployment],
    standing: list[dict[str, Any]] | None,
    outcome: Outcome,
    say: Callable[[str], None],
    dry_run: bool,
) -> None:
    if standing is None:
        feedstocks = sorted({deployment.feedstock for deployment in wanted})
        standing = [row for name in feedstocks for row in client.deployments_tagged(feedstock_tag(name))]
    flows = client.flows(sorted({deployment.flow for deployment in wanted})) if standing else {}
    rows = {(row["flow_id"], row["name"]): row for row in standing}
    keys = [run.key for deployment in wanted for run in deployment.runs]
    known = client.known_keys(keys) if rows else set()
    checked: set[str] = set()
    waiting: list[tuple[str, Deployment, list[Run]]] = []
    # Runs are started when all deployments stand: a run makes the server write, which a SQLite one does alone.
    for deployment in wanted:
        row = rows.get((flows.get(deployment.flow, ""), deployment.name))
        missing = [run for run in deployment.runs if run.key not in known]
        outcome.known += [run for run in deployment.runs if run.key in known]
        # All of its runs were started before: whatever stands there now came later and stays.
        same = row is not None and (not missing or all(_same(row, deployment.body, key) for key in _COMPARED))
        if not same or missing:
            _check_pool(client, deployment, checked)
        identity = str(row["id"]) if row else ""
        if same:
            outcome.unchanged.append(deployment.full_name)
        else:
            if not dry_run:
                flow = flows.get(deployment.flow) or client.create_flow(deployment.flow)
                identity = client.create_deployment({**deployment.body, "flow_id": flow})
            (outcome.updated if row else outcome.created).append(deployment.full_name)
            say(f"{'updated' if row else 'created'} deployment {deployment.full_name}")
        if missing:
            waiting.append((identity, deployment, missing))
    for identity, deployment, missing in waiting:
        if not dry_run:
            client.create_runs(identity, [_run_body(run, deployment) for run in missing])
        outcome.started += missing
        say(f"started {len(missing)} run{'s' if len(missing) > 1 else ''} of {deployment.full_name}")


def _same(row: dict[str, Any], body: dict[str, Any], key: str) -> bool:
    if key == "tags":
        return set(row[key]) == set(body[key])
    return bool(row.get(key) == body[key])


def _run_body(run: Run, deployment: Deployment) -> dict[str, Any]:
    return {
        "name": run.name,
        "parameters": run.parameters,
        "idempotency_key": run.key,
        "tags": [*deployment.body["tags"], *run.tags],
        "state": {"type": "SCHEDULED"},
        # The schema is the deployment's for people who start runs by hand. Holding these against it, which are made
        # from the same plan, would be a quarter of the server's work, and the flow checks them once more.
        "enforce_parameter_schema": False,
    }


def _check_pool(client: Prefect, deployment: Deployment, checked: set[str]) -> None:
    """Raise :class:`Refused` unless the bakery's pool and queue exist. Prefect would make the queue silently, and
    nobody would ever listen to it."""
    pool, queue = deployment.body["work_pool_name"], deployment.body["work_queue_name"]
    if f"{pool}/{queue}" in checked:
        return
    bakery = deployment.name.removesuffix(f".{queue}")
    serve = f"feedstock bakery serve {bakery} --label {queue}"
    if client.work_pool(pool) is None:
        raise Refused(NO_POOL.at(None, f"Prefect has no work pool `{pool}` for the bakery {bakery}", serve))
    if queue not in client.work_queues(pool):
        raise Refused(NO_QUEUE.at(None, f"the work pool `{pool}` has no queue `{queue}`", serve))
    checked.add(f"{pool}/{queue}")


def _stopped(wanted: list[Deployment], outcome: Outcome) -> Finding:
    done = outcome.created + outcome.updated + outcome.unchanged
    left = [deployment.full_name for deployment in wanted if deployment.full_name not in done]
    found = {run.key for run in outcome.started + outcome.known}
    runs = [f"{run.name} ({item.name})" for item in wanted for run in item.runs if run.key not in found]
    message = (
        f"done: {_named(done)}; not done: {_named(left)}; "
        f"runs started: {len(outcome.started)}, found started: {len(outcome.known)}, not started: {_named(runs)}"
    )
    return STOPPED.at(None, message, "run the same command again: it goes on from there")


def _named(names: list[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
