"""A service's own OpenAPI description as a contract: what of a request it does not describe."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import jsonschema


class Contract:
    """A service's description, read strictly: what it does not name is wrong, even if the service ignores it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._paths = [(_pattern(path), operations) for path, operations in document["paths"].items()]
        # The most literal path wins: /flows/filter before /flows/{id}.
        self._paths.sort(key=lambda pair: pair[0].pattern.count("[^/]+"))
        self._components = _strict(document["components"])

    def broken_by(self, method: str, url: str, body: bytes) -> str | None:
        """What is wrong with a request to ``url`` (a path below the API's root, with its query), or ``None``."""
        parts = urlsplit(url)
        operations = next((found for path, found in self._paths if path.fullmatch(unquote(parts.path))), None)
        if operations is None or method.lower() not in operations:
            return f"{method} {parts.path} is not documented"
        operation = operations[method.lower()]
        parameters = [*operation.get("parameters", []), *operations.get("parameters", [])]
        known = {parameter["name"] for parameter in parameters if parameter.get("in") == "query"}
        if unknown := {name for name, _ in parse_qsl(parts.query)} - known:
            return f"{method} {parts.path} documents no query {', '.join(sorted(unknown))}"
        described = operation.get("requestBody")
        if not described:
            return f"{method} {parts.path} documents no body" if body else None
        if not body:
            return f"{method} {parts.path} needs a body" if described.get("required") else None
        try:
            content = json.loads(body)
        except ValueError as error:
            return f"{method} {parts.path}: the body is not JSON: {error}"
        schema = {**_strict(described["content"]["application/json"]["schema"]), "components": self._components}
        validator = jsonschema.Draft202012Validator(schema)
        error = jsonschema.exceptions.best_match(validator.iter_errors(content))
        return f"{method} {parts.path}: {error.json_path}: {error.message}" if error else None


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(
        "".join("[^/]+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", path))
    )


def _strict(schema: Any) -> Any:
    """The same schemas, closed to what they do not name. Schemas that are composed with ``allOf`` stay as they are."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and "allOf" not in schema:
        closed.setdefault("additionalProperties", False)
    return closed
