"""What every typed file shares: strict models, and validation errors turned into findings with their place."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from .findings import RULES, Finding, Refused, Rule, rule
from .findings import did_you_mean as did_you_mean
from .yaml_file import Document, Loc

UNKNOWN_KEY = rule("key-unknown", "A key that nobody reads is usually a typing error, and its value is lost.")
MISSING_KEY = rule("key-missing", "The forge cannot guess this value.")
WRONG_TYPE = rule("value-wrong-type", "The value has another shape than this key needs.")
INVALID = rule("value-invalid", "The value has the right shape and still cannot be right.")

MAX_FINDINGS = 100
"""Findings about one file: nobody reads more, and a file of wrong entries must not fill a page."""

M = TypeVar("M", bound=BaseModel)


class Model(BaseModel):
    """Base of every model of a file: unknown keys refuse, values are never coerced to another type."""

    # Built when first used: `feedstock lint` does not wait for the models of files that it does not read.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


def invalid(message: str, fix: str, rule: Rule = INVALID) -> PydanticCustomError:
    """The error a validator raises: what is wrong with the value, what to write instead, and the rule that says so."""
    return PydanticCustomError(rule.id, "{message}", {"message": message, "fix": fix})


def shown(value: object, limit: int = 60) -> str:
    """A value as a message quotes it: in backticks, which the value itself may not close, and not at length."""
    words = str(value).replace("`", "'")
    return f"`{words if len(words) <= limit else words[: limit - 1] + '…'}`"


def validate(model: type[M], document: Document, data: Any = None) -> M:
    """Validate a document (or ``data`` derived from it) as ``model``. Raises :class:`Refused` with every finding."""
    try:
        return model.model_validate(document.data if data is None else data)
    except ValidationError as error:
        raise Refused(*_findings(model, document, error)) from None


def _findings(model: type[BaseModel], document: Document, error: ValidationError) -> list[Finding]:
    details = error.errors(include_url=False)[: 2 * MAX_FINDINGS]
    misspelt = {
        (_real(document, detail["loc"])[:-1], meant)
        for detail in details
        if detail["type"] == "extra_forbidden"
        for meant in [did_you_mean(str(detail["loc"][-1]), _fields(model, _real(document, detail["loc"])[:-1]))]
    }
    findings: dict[tuple[str, str], Finding] = {}
    for detail in details:
        loc = _real(document, detail["loc"])
        # `licence:` for `license:` is one mistake, not an unknown key and a missing one.
        if detail["type"] == "missing" and (loc[:-1], f"did you mean `{loc[-1]}`?") in misspelt:
            continue
        finding = _finding(model, document, detail, loc)
        findings.setdefault((str(finding.place), finding.message), finding)
    return list(findings.values())[:MAX_FINDINGS]


def _finding(model: type[BaseModel], document: Document, detail: ErrorDetails, loc: Loc) -> Finding:
    name = _name(loc)
    context: Mapping[str, Any] = detail.get("ctx") or {}
    match detail["type"]:
        case "extra_forbidden":
            where = f" in {_name(loc[:-1])}" if loc[:-1] else ""
            fix = did_you_mean(str(loc[-1]), sorted(_fields(model, loc[:-1])))
            fix = fix.replace("write one of", "remove it; the keys here are")
            return UNKNOWN_KEY.at(document.place(loc, key=True), f"unknown key {shown(loc[-1])}{where}", fix)
        case "missing":
            place = document.place(loc[:-1], key=len(loc) > 1)
            return MISSING_KEY.at(place, f"`{name}` is missing", f"add `{loc[-1]}: …`")
        case kind if kind in RULES:
            message = f"{name}: {context['message']}" if name else context["message"]
            return RULES[kind].at(document.place(loc), message, context["fix"])
        case "literal_error" | "enum":
            known = [part.strip("' ") for part in str(context["expected"]).replace(" or ", ", ").split(",")]
            fix = did_you_mean(str(detail["input"]), known)
            return INVALID.at(document.place(loc), f"{name}: {shown(detail['input'])} is not known", fix)
        case kind if kind.endswith(("_type", "_parsing")) or kind.startswith(("model_", "union_tag")):
            wanted = _wanted(kind)
            got = _described(detail["input"])
            return WRONG_TYPE.at(document.place(loc), f"{name}: expected {wanted}, not {got}", f"write {wanted}")
        case "too_short":
            return INVALID.at(document.place(loc), f"{name} is empty", "add an entry, or remove the key")
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
        "union": "a list or a mapping",
    }.get(kind.split("_")[0], kind.replace("_", " "))


def _described(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case bool():
            return f"`{str(value).lower()}`"
        case int() | float():
            return f"the number {shown(value)}"
        case _:
            return f"the text {shown(value)}"


def _name(loc: Loc) -> str:
    name = ""
    for part in loc:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


def _real(document: Document, loc: tuple[int | str, ...]) -> Loc:
    """Drop the parts that pydantic adds for the branches of a union and for keys: they are not in the file."""
    real: Loc = ()
    for index, part in enumerate(loc):
        last = index == len(loc) - 1 and part != "[key]" and not _is_tag(part)
        if last or document.holds((*real, part)):
            real = (*real, part)
    return real


TAG = "as "
"""How the name of a union's branch starts; the space keeps it apart from the keys of a file."""


def _is_tag(part: int | str) -> bool:
    return isinstance(part, str) and part.startswith(TAG)


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
    if origin is Annotated:
        return _flatten(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [inner for argument in get_args(annotation) for inner in _flatten(argument)]
    return [annotation]
