"""Entry points become recipes. This is the only module that imports recipe code.

Planning must know what an entry point is without trusting it: :func:`inspect` imports it in a process of its own with
a bare environment, a time limit and its output kept away from the log, where a printed line could be a command to
the runner. A worker and ``feedstock run`` import it with :func:`load`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect as python
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from . import entry_points
from .entry_points import NO_OBJECT
from .findings import Finding, Place, Refused, as_data, of_data, rule
from .meta import FOLDER, MetaFile, Recipe, RecipeDict, Store
from .models import did_you_mean

IMPORT_FAILED = rule("recipe-import-failed", "A recipe that cannot be imported cannot run anywhere.")
NOT_A_RECIPE = rule("recipe-not-callable", "A recipe is a Prefect flow, a callable or a Beam pipeline.")
CONTRACT = rule("recipe-contract", "Every recipe is called with target, mode and prune, and with nothing else.")
BAD_DICT = rule("recipe-dict-invalid", "The keys of a dict of recipes are the ids of its recipes.")
TIMEOUT = rule("recipe-import-slow", "Importing a recipe must not do its work: planning imports it on every event.")
FAILED = rule("recipe-failed", "The dataset stays as it was before the run.")
UNKNOWN = rule("recipe-unknown", "A run needs to know which recipe.")

PARAMETERS = ("target", "mode", "prune")
IMPORT_SECONDS = 120
MAX_RECIPES = 10_000

# What an import may see: where programs and packages are, and how to speak. Nothing that could be a secret.
_ENVIRONMENT = frozenset(
    [
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "TEMP",
        "TMP",
        "SYSTEMROOT",
        "VIRTUAL_ENV",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "TZ",
    ]
)


@dataclass(frozen=True, slots=True)
class Found:
    """What an entry point turned out to be: the ids of its recipes, and their first docstring line."""

    recipes: tuple[tuple[str, str], ...]


def bare(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment strangers' code may see where it must find nothing that could be a secret."""
    return {key: value for key, value in environment.items() if key in _ENVIRONMENT}


def load(folder: Path, entry_point: str, place: Place | None = None) -> Any:
    """Import ``module:name`` from ``<folder>/feedstock`` into this process and return the object.

    Raises :class:`Refused` with a ``recipe-*`` finding, at the line of the feedstock that failed where there is one.
    """
    file = entry_points.find(folder / FOLDER, entry_point, place)
    module_name, _, name = entry_point.partition(":")
    root = str((folder / FOLDER).resolve())
    if root not in sys.path:
        sys.path.insert(0, root)
    try:
        module = _import(module_name, file)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise Refused(_failed(error, Path(root), entry_point, place)) from error
    value: Any = module
    for part in name.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            names = [known for known in vars(module) if not known.startswith("_")]
            raise Refused(
                NO_OBJECT.at(place, f"{FOLDER}/{file.name} has no `{name}`", did_you_mean(name, sorted(names)))
            ) from None
    return value


def _import(name: str, file: Path) -> Any:
    """Import the feedstock's module even where a package of the same name is installed or was imported before."""
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(file.resolve()):
        return known
    if "." in name:
        return importlib.import_module(name)
    locations = [str(file.resolve().parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, file.resolve(), submodule_search_locations=locations)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def run(folder: Path, bake: Callable[..., Any], recipe_id: str, *, target: str, mode: str, prune: bool) -> None:
    """Call a recipe in this process. Raises :class:`Refused`, at the feedstock's own line, if it raises."""
    try:
        made = bake(target=target, mode=mode, prune=prune)
        if python.isgenerator(made) or python.isasyncgen(made):
            raise TypeError(
                "with `yield` in it, nothing of it runs: return, or put the `yield` into a function of its own"
            )
        if python.iscoroutine(made):
            import asyncio  # which takes longer to import than what most who import this module ask of it

            asyncio.run(made)
    except Refused:
        raise
    except Exception as error:
        where, line = _line(error, (folder / FOLDER).resolve())
        fix = f"correct this line: {line}" if line else "correct the recipe, or look at `feedstock --debug run …`"
        message = f"the recipe `{recipe_id}` raised {type(error).__name__}: {error}"
        raise Refused(FAILED.at(where, message, fix)) from error


def _failed(error: BaseException, root: Path, entry_point: str, place: Place | None) -> Finding:
    """The finding for an import that raised, at the deepest line inside the feedstock."""
    where, line = _line(error, root)
    message = f"importing `{entry_point}` failed: {type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        fix = f"add `{error.name.split('.')[0]}` to {FOLDER}/requirements.txt and install it"
    else:
        fix = f"correct this line: {line}" if line else "correct the module so that it imports"
    return IMPORT_FAILED.at(where or place, message, fix)


def _line(error: BaseException, root: Path) -> tuple[Place | None, str]:
    """The deepest line of the feedstock in an error's traceback: its place and its text."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).resolve().is_relative_to(root):
        return Place(_relative(error.filename, root), error.lineno, error.offset), (error.text or "").strip()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).is_absolute() and Path(frame.filename).resolve().is_relative_to(root):
            return Place(_relative(frame.filename, root), frame.lineno), frame.line or ""
    return None, ""


def _relative(filename: str, root: Path) -> str:
    return f"{FOLDER}/{Path(filename).resolve().relative_to(root)}"


def check_contract(recipe: Any, name: str, place: Place | None = None) -> str:
    """Check that an object is a recipe; returns the first line of its docstring.

    A recipe is a Prefect flow or a callable that takes ``target``, ``mode`` and ``prune`` by name and needs nothing
    else. Raises :class:`Refused` otherwise.
    """
    if not callable(recipe):
        raise Refused(
            NOT_A_RECIPE.at(place, f"`{name}` is a {type(recipe).__name__}, not a recipe", "name a function or a flow")
        )
    function = getattr(recipe, "fn", recipe)
    try:
        parameters = python.signature(function).parameters
    except (TypeError, ValueError):
        raise Refused(NOT_A_RECIPE.at(place, f"`{name}` has no signature", "wrap it in a function")) from None
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        by_name = {key for key, value in parameters.items() if value.kind is not value.POSITIONAL_ONLY}
        if missing := [wanted for wanted in PARAMETERS if wanted not in by_name]:
            raise Refused(
                CONTRACT.at(
                    place,
                    f"`{name}` takes no {' and no '.join(f'`{wanted}`' for wanted in missing)}",
                    f'declare it as `def {name.split(".")[-1]}(target, mode="complete", prune=False)`',
                )
            )
    variadic = (python.Parameter.VAR_POSITIONAL, python.Parameter.VAR_KEYWORD)
    needed = [
        key
        for key, value in parameters.items()
        if key not in PARAMETERS and value.default is value.empty and value.kind not in variadic
    ]
    if needed:
        raise Refused(
            CONTRACT.at(place, f"`{name}` needs `{needed[0]}`, which nobody passes", "give it a default value")
        )
    return (python.getdoc(function) or "").strip().split("\n")[0][:200]


def recipes_of(folder: Path, recipes: RecipeDict, place: Place | None = None) -> dict[str, Any]:
    """Import a ``dict_object`` and check its keys. Raises :class:`Refused`."""
    value = load(folder, recipes.dict_object, place)
    name = recipes.dict_object.split(":")[1]
    if not isinstance(value, Mapping):
        raise Refused(BAD_DICT.at(place, f"`{name}` is a {type(value).__name__}, not a dict", "make it `{id: recipe}`"))
    if not value or len(value) > MAX_RECIPES:
        raise Refused(
            BAD_DICT.at(place, f"`{name}` holds {len(value):,} recipes", f"let it hold between 1 and {MAX_RECIPES:,}")
        )
    lowered: dict[str, str] = {}
    for key in value:
        try:
            Recipe(id=key, object=recipes.dict_object)
        except ValueError:
            raise Refused(
                BAD_DICT.at(
                    place,
                    f"the key {key!r} of `{name}` is not a recipe id",
                    "use letters, digits, `.`, `_`, `-`",
                )
            ) from None
        if lowered.setdefault(key.lower(), key) != key:
            raise Refused(
                BAD_DICT.at(place, f"the keys `{lowered[key.lower()]}` and `{key}` differ only by case", "rename one")
            )
    return {key: _callable(item) for key, item in value.items()}


def _callable(value: Any) -> Any:
    """What is called to run a recipe: itself, unless it is a pipeline of Apache Beam's."""
    if "apache_beam" not in sys.modules:  # the recipe would have imported it
        return value
    from . import beam

    return beam.recipe(value) if beam.is_pipeline(value) else value


def recipe(folder: Path, file: MetaFile, recipe_id: str | None) -> tuple[str, Callable[..., Any], Store]:
    """The recipe of an id (or the only one), imported and checked: its id, the callable, and its store's name.

    Raises :class:`Refused` if there is no such recipe, or several and none was named.
    """
    declared = file.meta.recipes
    if isinstance(declared, RecipeDict):
        place = file.document.place(("recipes", "dict_object"))
        found = recipes_of(folder, declared, place)
        chosen = _choose(list(found), recipe_id, file)
        check_contract(found[chosen], f"{declared.dict_object.split(':')[1]}[{chosen!r}]", place)
        return chosen, found[chosen], declared.store
    chosen = _choose([item.id for item in declared], recipe_id, file)
    index = next(index for index, item in enumerate(declared) if item.id == chosen)
    place = file.document.place(("recipes", index, "object"))
    value = _callable(load(folder, declared[index].object, place))
    check_contract(value, declared[index].object.split(":")[1], place)
    return chosen, value, declared[index].store


def ids(folder: Path, file: MetaFile) -> list[str]:
    """The ids of every recipe; imports a ``dict_object``. Raises :class:`Refused`."""
    declared = file.meta.recipes
    if isinstance(declared, RecipeDict):
        return list(recipes_of(folder, declared, file.document.place(("recipes", "dict_object"))))
    return [item.id for item in declared]


def _choose(ids: list[str], wanted: str | None, file: MetaFile) -> str:
    if wanted is None and len(ids) == 1:
        return ids[0]
    if wanted is None:
        place = file.document.place(("recipes",))
        raise Refused(UNKNOWN.at(place, f"there are {len(ids)} recipes", f"name one of {', '.join(ids[:20])}"))
    if wanted not in ids:
        refuse_unknown(wanted, ids, file)
    return wanted


def refuse_unknown(wanted: str, ids: list[str], file: MetaFile) -> NoReturn:
    """Raise :class:`Refused`: there is no recipe of this id."""
    place = file.document.place(("recipes",))
    raise Refused(UNKNOWN.at(place, f"there is no recipe `{wanted}`", did_you_mean(wanted, ids)))


def inspect(folder: Path, file: MetaFile, *, python: Path | None = None, seconds: float = IMPORT_SECONDS) -> Found:
    """Import every recipe of a feedstock in a process of its own and say what was found.

    ``python`` is that of the recipes' environment (default: this one). Raises :class:`Refused` with the findings of
    that process, or because it died or took longer than ``seconds``.
    """
    place = file.document.place(("recipes",))
    environment = bare(os.environ)
    with tempfile.TemporaryDirectory() as scratch:
        reply = Path(scratch, "reply.json")
        with Path(scratch, "output").open("w+b") as output:
            try:
                # -B: a recipe may not leave bytecode in the checkout that is planned.
                # -P: nor may a file at the checkout's root stand in for a package of the same name, ours for one.
                done = subprocess.run(
                    [python or sys.executable, "-B", "-P", "-c", _ANSWER, str(folder), str(reply)],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=seconds,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise Refused(
                    TIMEOUT.at(
                        place,
                        f"importing the recipes took longer than {seconds:g} s",
                        "move the work into the recipe",
                    )
                ) from None
            output.seek(-min(output.seek(0, os.SEEK_END), 2000), os.SEEK_END)
            said = output.read().decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
        if not reply.exists():
            raise Refused(
                IMPORT_FAILED.at(
                    place,
                    f"importing the recipes ended Python with status {done.returncode}; it said: {said[0][:200]}",
                    "let the module import without ending the process",
                )
            )
        result = json.loads(reply.read_bytes())
    if "findings" in result:
        raise Refused(*map(of_data, result["findings"]))
    return Found(tuple((recipe_id, doc) for recipe_id, doc in result["recipes"]))


_ANSWER = f"import sys; from {__name__} import _answer; _answer(*sys.argv[1:])"


def _answer(folder: str, reply: str) -> None:
    """What the importing process does: look, and write what was found as JSON."""
    Path(reply).write_text(json.dumps(_look(Path(folder))), encoding="utf-8")


def _look(folder: Path) -> dict[str, Any]:
    from .meta import read

    try:
        file = read(folder)
        declared = file.meta.recipes
        if isinstance(declared, RecipeDict):
            place = file.document.place(("recipes", "dict_object"))
            name = declared.dict_object.split(":")[1]
            found = recipes_of(folder, declared, place)
            return {
                "recipes": [(key, check_contract(value, f"{name}[{key!r}]", place)) for key, value in found.items()]
            }
        return {"recipes": [(item.id, _doc(folder, file, item.id)) for item in declared]}
    except Refused as refused:
        return {"findings": [as_data(finding) for finding in refused.findings]}


def _doc(folder: Path, file: MetaFile, recipe_id: str) -> str:
    _, value, _ = recipe(folder, file, recipe_id)
    return (python.getdoc(getattr(value, "fn", value)) or "").strip().split("\n")[0][:200]
