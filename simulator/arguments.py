"""Plausible arguments for a tool, from its JSON Schema: what a model would send, not random data."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MAX_DEPTH = 6  # a schema that refers to itself must end somewhere

# Meaningful words by what a property is called; the first key contained in its name is used.
_BY_NAME: Sequence[tuple[str, str]] = (
    ("email", "ada@example.com"), ("phone", "+15550100"), ("number_to", "+15550100"), ("city", "Lisbon"),
    ("location", "Lisbon"), ("country", "Portugal"), ("timezone", "Europe/Lisbon"), ("language", "en"),
    ("currency", "EUR"), ("first_name", "Ada"), ("last_name", "Lovelace"), ("name", "Ada Lovelace"),
    ("date", "2026-11-23"), ("time", "10:30"), ("url", "https://example.com/"), ("reason", "The caller asked for it."),
    ("order", "A-1001"), ("digits", "123"), ("id", "1001"),
)
_BY_FORMAT: Mapping[str, str] = {
    "date-time": "2026-11-23T10:30:00Z", "date": "2026-11-23", "time": "10:30:00", "email": "ada@example.com",
    "uri": "https://example.com/", "uuid": "7b0c1f5e-8d2a-4c3b-9e6f-1a2b3c4d5e6f", "duration": "PT30M",
}
_SAID = ("query", "question", "text", "message", "summary", "content", "prompt")


def arguments_for(schema: Mapping[str, Any] | None, said: str) -> Any:
    """Return a value that satisfies the schema; `said` fills properties that ask for words of the user."""
    root = schema or {}
    value = _value(root, "", said, root=root, depth=0)
    return value if value is not None else {}


def _value(schema: Mapping[str, Any], name: str, said: str, *, root: Mapping[str, Any], depth: int) -> Any:
    if depth > MAX_DEPTH:
        return None
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][0]
    if "$ref" in schema:
        return _value(_resolved(schema["$ref"], root), name, said, root=root, depth=depth + 1)
    for key in ("anyOf", "oneOf"):
        choices = [choice for choice in schema.get(key, ()) if choice.get("type") != "null"]
        if choices:
            return _value(choices[0], name, said, root=root, depth=depth + 1)
    if "allOf" in schema:
        merged: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
        for part in (_resolved(p["$ref"], root) if "$ref" in p else p for p in schema["allOf"]):
            merged["properties"] |= part.get("properties", {})
            merged["required"] += part.get("required", [])
        return _value(merged, name, said, root=root, depth=depth + 1)
    return _typed_value(schema, name, said, root=root, depth=depth)


def _typed_value(schema: Mapping[str, Any], name: str, said: str, *, root: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema or depth == 0 else "string")
    if isinstance(kind, list):
        kind = next((entry for entry in kind if entry != "null"), "null")
    if kind == "object":
        properties = schema.get("properties", {})
        wanted = schema.get("required") or list(properties)
        shapes = {key: properties.get(key, {"type": "string"}) for key in wanted}
        return {key: _value(shape, key, said, root=root, depth=depth + 1) for key, shape in shapes.items()}
    if kind == "array":
        count = max(schema.get("minItems", 1), 1)
        return [_value(schema.get("items", {}), name, said, root=root, depth=depth + 1) for _ in range(min(count, 10))]
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    if kind == "boolean":
        return True
    return None if kind == "null" else _string(schema, name, said)


def _number(schema: Mapping[str, Any], *, whole: bool) -> float:
    """Return 2 or the nearest number inside the bounds."""
    low, high = schema.get("minimum", 1), schema.get("maximum", float("inf"))
    if "exclusiveMinimum" in schema:
        low = max(low, schema["exclusiveMinimum"] + 1)
    if "exclusiveMaximum" in schema:
        high = min(high, schema["exclusiveMaximum"] - 1)
    value = min(max(2, low), high)
    step = schema.get("multipleOf")
    if step:
        value = -(-value // step) * step
    return int(value) if whole else value


def _string(schema: Mapping[str, Any], name: str, said: str) -> str:
    lowered = name.lower()
    if schema.get("format") in _BY_FORMAT:
        value = _BY_FORMAT[schema["format"]]
    elif any(key in lowered for key in _SAID):
        value = said or "opening hours"
    else:
        value = next((word for key, word in _BY_NAME if key in lowered), "example")
    value = value.ljust(schema.get("minLength", 0), "x")
    return value[: schema["maxLength"]] if "maxLength" in schema else value


def _resolved(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a local `#/...` reference; one that leads nowhere means any string."""
    node: Any = root
    for step in reference.removeprefix("#/").split("/"):
        node = node.get(step) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {"type": "string"}
