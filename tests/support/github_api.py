"""GitHub's own OpenAPI document: is this a request that GitHub documents, and an answer that it would give?"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

_FILE = Path(__file__).parents[1] / "npm/node_modules/@octokit/openapi/generated/api.github.com.json"
_URI = "urn:github"


def _nullable(validator: Any, types: Any, instance: Any, schema: Any) -> Any:
    """OpenAPI 3.0 writes ``nullable`` where JSON Schema has a type ``null``."""
    if not (instance is None and schema.get("nullable")):
        yield from jsonschema.Draft4Validator.VALIDATORS["type"](validator, types, instance, schema)


def _nullable_enum(validator: Any, values: Any, instance: Any, schema: Any) -> Any:
    if not (instance is None and schema.get("nullable")):
        yield from jsonschema.Draft4Validator.VALIDATORS["enum"](validator, values, instance, schema)


_Validator = jsonschema.validators.extend(jsonschema.Draft4Validator, {"type": _nullable, "enum": _nullable_enum})


@cache
def _document() -> tuple[dict[str, Any], Any]:
    content = json.loads(_FILE.read_text(encoding="utf-8"))
    return content, Registry().with_resource(_URI, Resource(content, DRAFT4))


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Every documented path; those with fewer variables first, since they are more exact."""
    paths = sorted(_document()[0]["paths"], key=lambda path: (path.count("{"), -len(path)))

    def pattern(path: str) -> str:
        # A file's path is the one variable that holds slashes.
        return re.sub(
            r"\\\{(\w+)\\\}",
            lambda match: f"(?P<{match[1]}>{'.+' if match[1] == 'path' else '[^/]+'})",
            re.escape(path),
        )

    return [(re.compile(pattern(path)), path) for path in paths]


def _resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        content: Any = _document()[0]
        for part in node["$ref"].removeprefix("#/").split("/"):
            content = content[part.replace("~1", "/").replace("~0", "~")]
        node = content
    return node


def _pointer(*parts: str) -> dict[str, str]:
    return {"$ref": f"{_URI}#/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in parts)}


def _errors(pointer: dict[str, str], value: Any) -> list[str]:
    validator = _Validator(pointer, registry=_document()[1])
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(value)]


class Undocumented(Exception):  # noqa: N818 - says what it is
    """GitHub documents no such request."""


def match(method: str, path: str, query: dict[str, str], body: Any) -> tuple[str, dict[str, str]]:
    """The documented path of a request and its variables. Raises :class:`Undocumented` with all that is wrong."""
    paths = _document()[0]["paths"]
    found = [(template, match) for pattern, template in _patterns() if (match := pattern.fullmatch(path))]
    template, variables = next(((name, m) for name, m in found if method.lower() in paths[name]), (None, None))
    if template is None or variables is None:
        raise Undocumented(f"{method} {path} is not documented")
    operation = paths[template][method.lower()]
    wrong = []
    known = {
        parameter["name"] for parameter in map(_resolve, operation.get("parameters", [])) if parameter["in"] == "query"
    }
    wrong += [f"unknown query parameter {name}" for name in query if name not in known]
    if "requestBody" in operation:
        where = ("paths", template, method.lower(), "requestBody", "content", "application/json", "schema")
        schema = _resolve(operation["requestBody"]["content"]["application/json"]["schema"])
        if body is not None:
            wrong += _errors(_pointer(*where), body)
        if isinstance(body, dict) and "properties" in schema and "additionalProperties" not in schema:
            wrong += [f"unknown field {name}" for name in body if name not in schema["properties"]]
    elif body is not None:
        wrong.append("it takes no body")
    if wrong:
        raise Undocumented(f"{method} {template}: {'; '.join(wrong)}")
    return template, variables.groupdict()


def _success(template: str, method: str) -> tuple[str, dict[str, Any]]:
    responses = _document()[0]["paths"][template][method.lower()]["responses"]
    status = next(code for code in responses if code.startswith("2"))
    return status, _resolve(responses[status])


def example(template: str, method: str) -> tuple[int, Any]:
    """GitHub's status and its own first example of an answer."""
    status, response = _success(template, method)
    examples = response.get("content", {}).get("application/json", {}).get("examples", {})
    return int(status), _resolve(next(iter(examples.values()), {"value": None}))["value"]


def answer_errors(template: str, method: str, value: Any) -> list[str]:
    """What GitHub's schema has against an answer, less what it has against GitHub's own example of that answer."""
    known = _example_errors(template, method)
    return [error for error in _schema_errors(template, method, value) if _anywhere(error) not in known]


@cache
def _example_errors(template: str, method: str) -> set[str]:
    return {_anywhere(error) for error in _schema_errors(template, method, example(template, method)[1])}


def _anywhere(error: str) -> str:
    """An error without the row that it is in."""
    return re.sub(r"\[\d+\]", "[]", error)


def _schema_errors(template: str, method: str, value: Any) -> list[str]:
    status, response = _success(template, method)
    if "application/json" not in response.get("content", {}):
        return []
    responses = _document()[0]["paths"][template][method.lower()]["responses"]
    if "$ref" in responses[status]:
        parts = (*responses[status]["$ref"].removeprefix("#/").split("/"), "content", "application/json", "schema")
    else:
        parts = ("paths", template, method.lower(), "responses", status, "content", "application/json", "schema")
    return _errors(_pointer(*parts), value)
