"""What every typed file shares: strict models, and validation errors turned into findings with their place."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from .findings import Finding, Refused, rule
from .yaml_file import Document, Loc

UNKNOWN_KEY = rule("key-unknown", "A key that nobody reads is usually a typing error, and its value is lost.")
MISSING_KEY = rule("key-missing", "The forge cannot guess this value.")
WRONG_TYPE = rule("value-wrong-type", "The value has another shape than this key needs.")
INVALID = rule("value-invalid", "The value has the right shape and still cannot be right.")

M = TypeVar("M", bound=BaseModel)


class Model(BaseModel):
    """Base of every model of a file: unknown keys refuse, values are never coerced to another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def invalid(message: str, fix: str) -> PydanticCustomError:
    """The error a validator raises: what is wrong with the value, and what to write instead."""
    return PydanticCustomError("invalid", "{message}", {"message": message, "fix": fix})


def validate(model: type[M], document: Document, data: Any = None) -> M:
    """Validate a document (or ``data`` derived from it) as ``model``. Raises :class:`Refused` with every finding."""
    try:
        return model.model_validate(document.data if data is None else data)
    except ValidationError as error:
        raise Refused(*_findings(model, document, error)) from None


def did_you_mean(word: str, known: list[str]) -> str:
    """``did you mean `x`?``, or the known words where none is near."""
    near = difflib.get_close_matches(word.lower(), {name.lower(): name for name in known}, n=1, cutoff=0.6)
    if near:
        match = next(name for name in known if name.lower() == near[0])
        return f"did you mean `{match}`?"
    return f"write one of {', '.join(f'`{name}`' for name in known)}" if known else "remove it"


def _findings(model: type[BaseModel], document: Document, error: ValidationError) -> list[Finding]:
    seen: set[tuple[str, str]] = set()
    findings = []
    for detail in error.errors(include_url=False):
        finding = _finding(model, document, detail)
        identity = (str(finding.place), finding.message)
        if identity not in seen:
            seen.add(identity)
            findings.append(finding)
    return findings


def _finding(model: type[BaseModel], document: Document, detail: ErrorDetails) -> Finding:
    loc = _real(document, detail["loc"])
    name = _name(loc)
    context: Mapping[str, Any] = detail.get("ctx") or {}
    match detail["type"]:
        case "extra_forbidden":
            known = sorted(_fields(model, loc[:-1]))
            where = f" in {_name(loc[:-1])}" if loc[:-1] else ""
            return UNKNOWN_KEY.at(
                document.place(loc, key=True), f"unknown key `{loc[-1]}`{where}", did_you_mean(str(loc[-1]), known)
            )
        case "missing":
            return MISSING_KEY.at(document.place(loc[:-1]), f"`{name}` is missing", f"add `{loc[-1]}: …`")
        case "invalid":
            return INVALID.at(document.place(loc), f"{name}: {context['message']}", str(context["fix"]))
        case "literal_error" | "enum":
            known = [part.strip("' ") for part in str(context["expected"]).replace(" or ", ", ").split(",")]
            return INVALID.at(
                document.place(loc), f"{name}: `{detail['input']}` is not known", did_you_mean(str(detail["input"]), known)
            )
        case kind if kind.endswith("_type") or kind.endswith("_parsing") or kind.startswith("model_"):
            wanted = _wanted(kind)
            return WRONG_TYPE.at(document.place(loc), f"{name}: expected {wanted}", f"write {wanted}")
        case _:
            return INVALID.at(document.place(loc), f"{name}: {detail['msg']}", "correct the value")


def _wanted(kind: str) -> str:
    return {
        "string": "text (quote it)",
        "int": "a whole number",
        "float": "a number",
        "bool": "`true` or `false`",
        "list": "a list",
        "dict": "a mapping",
        "model": "a mapping",
        "date": "a date such as `2027-11-01`",
    }.get(kind.split("_")[0], kind.replace("_", " "))


def _name(loc: Loc) -> str:
    name = ""
    for part in loc:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


def _real(document: Document, loc: tuple[int | str, ...]) -> Loc:
    """Drop the parts that pydantic adds for the branches of a union: they are not in the file."""
    real: Loc = ()
    for index, part in enumerate(loc):
        inside = (*real, part) in document.values or (*real, part) in document.keys
        if inside or index == len(loc) - 1:
            real = (*real, part)
    return real


def _fields(model: type[BaseModel], loc: Loc) -> set[str]:
    """The keys that the schema knows at a location, the branches of a union taken together."""
    models: list[Any] = [model]
    for part in loc:
        models = [inner for outer in models for inner in _step(outer, part)]
    return {
        field.alias or name
        for found in models
        if isinstance(found, type) and issubclass(found, BaseModel)
        for name, field in found.model_fields.items()
    }


def _step(annotation: Any, part: str | int) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if (field.alias or name) == part:
                return _flatten(field.annotation)
        return []
    arguments = get_args(annotation)
    return _flatten(arguments[-1]) if arguments else []


def _flatten(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Union or str(origin) == "<class 'types.UnionType'>":
        return [inner for argument in get_args(annotation) for inner in _flatten(argument)]
    return [annotation]
