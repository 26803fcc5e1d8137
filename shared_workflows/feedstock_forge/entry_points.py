"""Entry points, read and not imported: which file `module:name` means, and which names that file defines."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .findings import Finding, Place, Refused, did_you_mean, rule
from .yaml_file import read_text

NO_MODULE = rule("recipe-module-missing", "The entry point names a file, and the file is not there.")
OUTSIDE = rule("recipe-outside", "Only code inside the feedstock was reviewed with it.")
NO_OBJECT = rule("recipe-object-missing", "The entry point names something that its module does not hold.")
SYNTAX = rule("recipe-syntax", "A file that Python cannot read cannot be imported anywhere.")

STAR = "*"
MAX_BYTES = 128 << 10
"""Of a module that an entry point names; the largest of the community has 30 KiB."""


@dataclass(frozen=True, slots=True)
class Module:
    """What a module defines at its top level, as far as reading tells."""

    file: Path
    names: frozenset[str]
    dynamic: bool
    """Whether it may hold names that reading cannot see: a star import, ``__getattr__``, ``globals()``."""


def find(root: Path, entry_point: str, place: Place | None = None) -> Path:
    """The file that ``module:name`` means, beside the meta.yaml in ``root``.

    Raises :class:`Refused` where the file is missing or leads out of ``root``.
    """
    module = entry_point.split(":")[0]
    base = root.joinpath(*module.split("."))
    candidates = (base.with_name(f"{base.name}.py"), base / "__init__.py")
    file = next((path for path in candidates if path.is_file()), None)
    if file is None:
        modules = sorted(path.stem for path in root.glob("*.py"))
        wanted = f"{root.name}/{module.replace('.', '/')}.py"
        fix = did_you_mean(module, modules) if modules else f"add {wanted}, beside meta.yaml"
        raise Refused(NO_MODULE.at(place, f"there is no {wanted}", fix))
    if not file.resolve().is_relative_to(root.resolve()):
        message = f"{root.name}/{file.name} leads out of the feedstock"
        raise Refused(OUTSIDE.at(place, message, "put the file itself there"))
    return file


def read(file: Path) -> Module:
    """Read a module's top-level names from its source. Raises :class:`Refused` if it is unreadable or not Python."""
    source = read_text(file, max_bytes=MAX_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python thinks of somebody's escapes is no finding
            tree = ast.parse(source)
    except SyntaxError as error:
        where = Place(str(file), error.lineno, error.offset)
        raise Refused(SYNTAX.at(where, f"not valid Python: {error.msg}", "correct this line")) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise Refused(SYNTAX.at(Place(str(file)), f"Python cannot read it: {error}", "simplify it")) from None
    names = {name for node in _top_level(tree.body) for name in _bound(node)}
    dynamic = STAR in names or "__getattr__" in names or "globals()" in source
    return Module(file, frozenset(names), dynamic)


def check(module: Module, entry_point: str, place: Place | None = None) -> list[Finding]:
    """Whether the module defines the first name of ``module:name``; what is inside it, only running it can tell."""
    name = entry_point.partition(":")[2].split(".")[0]
    if name in module.names or module.dynamic:
        return []
    known = sorted(known for known in module.names if not known.startswith("_"))
    fix = did_you_mean(name, known) if known else f"define `{name}` there"
    return [NO_OBJECT.at(place, f"{module.file.name} defines no `{name}`", fix)]


def _top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported, those under `if`, `try`, `with` and loops included."""
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If | ast.For | ast.While | ast.With | ast.Try | ast.TryStar | ast.Match):
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.stmt):
                    waiting.append(child)
                elif isinstance(child, ast.ExceptHandler | ast.match_case):
                    waiting += child.body


def _bound(node: ast.stmt) -> Iterator[str]:
    """The names that a statement binds."""
    match node:
        case ast.Assign():
            targets: list[ast.expr | None] = list(node.targets)
        case ast.AnnAssign() | ast.AugAssign() | ast.For():
            targets = [node.target]
        case ast.With():
            targets = [item.optional_vars for item in node.items]
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
            return
        case ast.Import() | ast.ImportFrom():
            for alias in node.names:
                yield alias.asname or alias.name.split(".")[0]
            return
        case _:
            # `type Recipe = …` of Python 3.12 has its name in a node that older versions do not know.
            targets = [getattr(node, "name", None)]
    for target in targets:
        for inner in ast.walk(target) if target is not None else ():
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                yield inner.id
