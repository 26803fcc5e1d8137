"""The plan: what a trigger would register, as data, before anything trusted has acted on it.

The planning job imports recipe code and therefore holds no secret; the registering job holds the key and reads this
file as the word of a stranger. What the plan says of identity is compared with the truth, never believed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NoReturn

from pydantic import Field, ValidationError

from . import __version__, git, meta, recipes
from .findings import Place, Refused, Who, rule
from .meta import OTHER_ID, EntryPoint, Event, FeedstockId, LabelRequest, MetaFile, RecipeId, Store, Version
from .models import Model
from .trigger import UNNAMED, Mode, Nothing, Trigger
from .yaml_file import read_text

SECRET = rule(
    "plan-secret-in-reach",
    "Planning runs the recipe's code, which could send away whatever it finds.",
    who=Who.ORGANISATION,
)
UNREADABLE = rule("plan-unreadable", "What the plan says is registered in somebody's name, so it must be exact.")
OTHER_META = rule(
    "plan-other-meta",
    "What a plan asks for and meta.yaml does not was never reviewed: recipe code ran where the plan was written.",
    who=Who.MAINTAINER,
)
OTHER_TRIGGER = rule("plan-other-trigger", "A plan of another commit or event describes recipes that nobody released.")

SECRETS = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")
MAX_PLAN = 16 << 20  # bytes: ten thousand recipes with a description each


class PlannedRecipe(Model):
    """One recipe, as planning found it."""

    id: RecipeId
    description: str = Field(default="", max_length=200)


class Request(Model):
    """One label that the feedstock asks for, and the line of meta.yaml that asks."""

    bakery: str
    label: str
    on: list[Event]
    target: str
    memory: int | None = None
    """Bytes."""
    cpu: float | None = None
    line: int | None = None


class Plan(Model):
    """All of a plan.json."""

    format: Literal[1] = 1
    forge: str = __version__
    repository: str
    commit: str
    event: Event
    mode: Mode
    version: str
    feedstock: FeedstockId
    dataset_version: Version
    title: str = Field(max_length=500)
    dict_object: EntryPoint | None = None
    """Set where the recipes are the entries of one dict: they share a deployment."""
    recipes: list[PlannedRecipe] = Field(min_length=1, max_length=recipes.MAX_RECIPES)
    stores: dict[RecipeId, Store] = Field(default_factory=dict)
    """The stores of recipes that do not write Icechunk."""
    bakeries: list[Request]


class NoPlan(Model):
    """A plan.json that says why there is nothing to do."""

    format: Literal[1] = 1
    forge: str = __version__
    nothing: str


def refuse_secrets(environment: Mapping[str, str]) -> None:
    """Raise :class:`Refused` if a secret of Prefect's is in the environment in which recipe code will run."""
    if found := [name for name in SECRETS if environment.get(name)]:
        raise Refused(
            SECRET.at(
                None,
                f"{' and '.join(found)} is set where recipe code runs",
                "remove it from this job or shell; only `feedstock register` needs it",
            )
        )


def make(trigger: Trigger, folder: Path) -> Plan:
    """Plan a trigger for the checkout in ``folder``; imports the recipes in a process of their own.

    Raises :class:`Refused` with the findings of ``meta.yaml`` and of the recipes.
    """
    file = meta.read(folder, repository=trigger.repository)
    declared = file.meta
    # A folder that is no clone yet may have any name; GitHub gives every repository an id.
    unnamed = trigger.repository.startswith(f"{UNNAMED}/") and not trigger.repository_id
    if declared.id != trigger.feedstock and not unnamed:
        raise Refused(
            OTHER_ID.at(
                file.document.place(("id",)),
                f"the id is `{declared.id}`, the repository {trigger.repository}",
                f"write `id: {trigger.feedstock}`",
            )
        )
    found = recipes.inspect(folder, file)
    chosen = [(recipe_id, text) for recipe_id, text in found.recipes if trigger.recipe in (None, recipe_id)]
    if not chosen:
        recipes.refuse_unknown(str(trigger.recipe), [recipe_id for recipe_id, _ in found.recipes], file)
    stores: dict[str, Store]
    if isinstance(declared.recipes, meta.RecipeDict):
        dict_object = declared.recipes.dict_object
        stores = {recipe_id: declared.recipes.store for recipe_id, _ in chosen}
    else:
        dict_object = None
        stores = {item.id: item.store for item in declared.recipes}
    return Plan(
        repository=trigger.repository,
        commit=trigger.commit,
        event=trigger.event,
        mode=trigger.mode,
        version=trigger.version,
        feedstock=declared.id,
        dataset_version=declared.version,
        title=declared.title[:500],
        dict_object=dict_object,
        recipes=[PlannedRecipe(id=recipe_id, description=text) for recipe_id, text in chosen],
        stores={recipe_id: store for recipe_id, store in stores.items() if store != "icechunk"},
        bakeries=requests(file),
    )


def requests(file: MetaFile) -> list[Request]:
    """The labels that a meta.yaml asks for."""
    return [
        _request(wish, file.document.place(("bakeries", index, "label")).line)
        for index, wish in enumerate(file.meta.bakeries)
    ]


def _request(wish: LabelRequest, line: int | None) -> Request:
    return Request(
        bakery=wish.id,
        label=wish.label,
        on=wish.on,
        target=wish.target,
        memory=wish.resources.memory,
        cpu=wish.resources.cpu,
        line=line,
    )


def write(plan: Plan | Nothing, path: Path) -> None:
    """Write a plan whole or not at all."""
    model = NoPlan(nothing=plan.because) if isinstance(plan, Nothing) else plan
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(model.model_dump_json(indent=2, exclude_defaults=False) + "\n", encoding="utf-8")
    partial.replace(path)


def read(path: Path) -> Plan | Nothing:
    """Read a plan as the word of a stranger. Raises :class:`Refused` if it is not exactly one."""
    text = read_text(path, max_bytes=MAX_PLAN)
    try:
        data = json.loads(text)
        if isinstance(data, dict) and "nothing" in data:
            return Nothing(NoPlan.model_validate(data).nothing)
        plan = Plan.model_validate(data)
    except (ValueError, RecursionError) as error:
        what = str(error)
        if isinstance(error, ValidationError):
            detail = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in detail["loc"])
            what = f"{where}: {detail['msg']}"
        raise Refused(
            UNREADABLE.at(Place(str(path)), f"not a plan: {what}", "make it again with `feedstock plan`")
        ) from None
    ids = [recipe.id.lower() for recipe in plan.recipes]
    if len(set(ids)) != len(ids):
        raise Refused(
            UNREADABLE.at(Place(str(path)), "a recipe id stands twice", "make it again with `feedstock plan`")
        )
    return plan


def refuse_nothing(plan: Nothing, trigger: Trigger, path: Path) -> NoReturn:
    """Raise :class:`Refused`: the plan says there is nothing to do, and the event says there is."""
    message = f"the plan says nothing is to be done ({plan.because}), but a {trigger.event} of {trigger.version} is"
    raise Refused(OTHER_TRIGGER.at(Place(str(path)), message, "plan this very event again, then register"))


def refuse_other(plan: Plan, trigger: Trigger, path: Path) -> None:
    """Raise :class:`Refused` where a plan claims another identity than the job's own."""
    claims = {
        "repository": (plan.repository, trigger.repository),
        "commit": (plan.commit, trigger.commit),
        "event": (plan.event, trigger.event),
        "mode": (plan.mode, trigger.mode),
        "version": (plan.version, trigger.version),
        "feedstock": (plan.feedstock, trigger.feedstock),
    }
    wrong = [f"{name} {claimed!r} (is {true!r})" for name, (claimed, true) in claims.items() if claimed != true]
    if trigger.recipe and [recipe.id for recipe in plan.recipes] != [trigger.recipe]:
        wrong.append(f"other recipes than `{trigger.recipe}`, which was asked for")
    if wrong:
        raise Refused(
            OTHER_TRIGGER.at(
                Place(str(path)),
                f"the plan claims {', '.join(wrong)}",
                "plan this very event again, then register",
            )
        )


def committed_meta(trigger: Trigger, folder: Path, token: str | None = None) -> MetaFile:
    """``meta.yaml`` as it stands in the trigger's commit, read as data; nothing of the feedstock's is imported.

    The commit comes from ``folder`` where that is a clone that has it, else from the feedstock's repository: its SHA
    is the same everywhere. ``token`` may read that repository, where not everybody may. Raises :class:`Refused` if it
    cannot be had or is wrong.
    """
    with tempfile.TemporaryDirectory() as scratch:
        here = git.Repository(folder)
        if not here.resolve(trigger.commit):
            clone = Path(scratch) / "clone"
            clone.mkdir()
            here = git.fetch(trigger.clone_url, trigger.commit, clone, token=token, server=trigger.server)
        copy = Path(scratch) / meta.FOLDER
        copy.mkdir()
        text = here.read(trigger.commit, f"{meta.FOLDER}/{meta.FILE}")
        (copy / meta.FILE).write_text(text, encoding="utf-8")
        return meta.read(Path(scratch), repository=trigger.repository)


def refuse_other_meta(plan: Plan, file: MetaFile, path: Path) -> None:
    """Raise :class:`Refused` where a plan says what the ``meta.yaml`` of its commit does not.

    The plan was written beside recipe code, which could have added a label, a recipe or another version to it.
    """
    declared = file.meta
    wrong = []
    asked = [request.model_dump(exclude={"line"}) for request in requests(file)]
    for request in plan.bakeries:
        if request.model_dump(exclude={"line"}) not in asked:
            events = " and ".join(request.on)
            wrong.append(f"asks for `{request.label}` at {request.bakery} on {events} (target {request.target})")
    if plan.dataset_version != declared.version:
        wrong.append(f"says version {plan.dataset_version} (is {declared.version})")
    if isinstance(declared.recipes, meta.RecipeDict):
        stores = {recipe.id: declared.recipes.store for recipe in plan.recipes}
        dict_object = declared.recipes.dict_object
    else:
        stores = {recipe.id: recipe.store for recipe in declared.recipes}
        dict_object = None
    if plan.dict_object != dict_object:
        wrong.append(f"says dict_object {plan.dict_object} (is {dict_object})")
    wrong += [
        f"names a recipe `{recipe.id}` that is not there, or of another store"
        for recipe in plan.recipes
        if stores.get(recipe.id) != plan.stores.get(recipe.id, "icechunk")
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        message = f"meta.yaml does not say what the plan says: it {', '.join(wrong[:5])}{more}"
        raise Refused(OTHER_META.at(Place(str(path)), message, "look for what changed the plan, then plan again"))
