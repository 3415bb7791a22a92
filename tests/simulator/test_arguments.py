"""Arguments made from a schema satisfy it."""
from __future__ import annotations

import jsonschema
import pytest

from simulator.arguments import arguments_for

SCHEMAS = [
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    {"type": "object", "properties": {
        "unit": {"enum": ["celsius", "kelvin"]}, "days": {"type": "integer", "minimum": 3}}},
    {"type": "object", "properties": {"when": {"type": "string", "format": "date"}, "share": {
        "type": "number", "exclusiveMinimum": 0, "maximum": 1}}, "required": ["when", "share"]},
    {"type": "object", "properties": {"items": {"type": "array", "minItems": 2, "items": {
        "type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}}}, "required": ["items"]},
    {"type": "object", "properties": {"note": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 4}]}}},
    {"type": "object", "properties": {"who": {"$ref": "#/$defs/person"}}, "$defs": {
        "person": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}}},
    {"type": "object", "allOf": [{"properties": {"a": {"type": "boolean"}}, "required": ["a"]},
                                 {"properties": {"b": {"const": 5}}, "required": ["b"]}]},
    {"type": "object", "required": ["n"], "properties": {
        "n": {"type": ["null", "integer"], "multipleOf": 5, "minimum": 7}}},
    {"type": "object", "properties": {}},
    {},
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_arguments_satisfy_their_schema(schema):
    """What is made validates, and is an object."""
    made = arguments_for(schema, "opening hours")
    assert isinstance(made, dict)
    jsonschema.validate(made, schema)


def test_words_of_the_user_fill_questions():
    """A property that asks for a query gets what the user said; others get plausible values."""
    schema = {"properties": {"query": {"type": "string"}, "email": {"type": "string"}}}
    assert arguments_for(schema, "test tool parking") == {"query": "test tool parking", "email": "ada@example.com"}


def test_schema_that_refers_to_itself_ends():
    """Recursion is bounded."""
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    assert "next" in arguments_for(node, "")


def test_tool_without_parameters_gets_none():
    """No schema means no arguments."""
    assert arguments_for(None, "x") == {}
