"""Checks a JSON value against a shape, refusing what the real service refuses, with its codes and `param` paths.

A `Check` is a function of a value and its path that returns nothing or raises `Invalid`. `shapes.py` builds the client
events of the Realtime API from these. Unknown fields are never ignored.
"""
from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_TYPE_NAMES = {
    str: "a string", bool: "a boolean", int: "an integer", float: "a decimal", list: "an array", dict: "an object",
}
Check = Callable[[Any, str], None]


class Invalid(Exception):
    """Raised when a client event is refused; becomes an `error` event of type invalid_request_error."""

    def __init__(self, code: str | None, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def listed(values: Sequence[str]) -> str:
    """Return values as in the service's messages: 'a', 'b', and 'c'."""
    quoted = [f"'{value}'" for value in values]
    if len(quoted) < 2:
        return "".join(quoted)
    return " and ".join(quoted) if len(quoted) == 2 else f"{', '.join(quoted[:-1])}, and {quoted[-1]}"


def _article(value: Any) -> str:
    return "null" if value is None else _TYPE_NAMES.get(type(value), "an object")


def wrong_type(value: Any, path: str, expected: str) -> Invalid:
    """Return the refusal of a value of another type."""
    message = f"Invalid type for '{path}': expected {expected}, but got {_article(value)} instead."
    return Invalid("invalid_type", message, path)


def wrong_value(value: Any, path: str, supported: Sequence[str]) -> Invalid:
    """Return the refusal of a value that is not in the list."""
    return Invalid("invalid_value", f"Invalid value: '{value}'. Supported values are: {listed(supported)}.", path)


def missing(path: str) -> Invalid:
    """Return the refusal of an object without a field it needs."""
    return Invalid("missing_required_parameter", f"Missing required parameter: '{path}'.", path)


def text(*, longest: int | None = None, shortest: int = 0) -> Check:
    """Accept strings, within these lengths."""

    def check(value: Any, path: str) -> None:
        """Look at the type, then at the length."""
        if not isinstance(value, str):
            raise wrong_type(value, path, "a string")
        if longest is not None and len(value) > longest:
            raise Invalid(
                "string_above_max_length",
                f"Invalid '{path}': string too long. Expected a string with maximum length {longest}, "
                f"but got a string with length {len(value)} instead.",
                path,
            )
        if len(value) < shortest:
            raise Invalid("string_below_min_length", f"Invalid '{path}': string too short.", path)

    return check


def one_of(*values: str) -> Check:
    """Accept one of these strings."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, str):
            raise wrong_type(value, path, f"one of {listed(values)}")
        if value not in values:
            raise wrong_value(value, path, values)

    return check


def flag(value: Any, path: str) -> None:
    """Accept true and false."""
    if not isinstance(value, bool):
        raise wrong_type(value, path, "a boolean")


def integer(low: int, high: int | None = None) -> Check:
    """Accept whole numbers between the bounds, both included."""
    return _bounded("integer", low, high)


def decimal(low: float, high: float) -> Check:
    """Accept numbers between the bounds, both included."""
    return _bounded("decimal", low, high)


def _bounded(kind: str, low: float, high: float | None) -> Check:
    types = (int,) if kind == "integer" else (int, float)

    def check(value: Any, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, types):
            raise wrong_type(value, path, "an integer" if kind == "integer" else "a decimal")
        side = ("below_min", "below minimum", ">=", low) if value < low else None
        if high is not None and value > high:
            side = ("above_max", "above maximum", "<=", high)
        if side:
            expected = f"Expected a value {side[2]} {side[3]}, but got {value} instead."
            raise Invalid(f"{kind}_{side[0]}_value", f"Invalid '{path}': {kind} {side[1]} value. {expected}", path)

    return check


def nullable(inner: Check) -> Check:
    """Accept null besides what `inner` accepts."""

    def check(value: Any, path: str) -> None:
        if value is not None:
            inner(value, path)

    return check


def either(by_type: Mapping[type, Check], expected: str) -> Check:
    """Choose the check by the JSON type of the value."""

    def check(value: Any, path: str) -> None:
        inner = by_type.get(type(value))
        if inner is None:
            raise wrong_type(value, path, expected)
        inner(value, path)

    return check


def array_of(inner: Check, *, longest: int | None = None) -> Check:
    """Accept arrays whose every element passes."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise wrong_type(value, path, "an array")
        if longest is not None and len(value) > longest:
            message = f"Invalid '{path}': array too long. Expected an array with maximum length {longest}."
            raise Invalid("array_above_max_length", message, path)
        for index, element in enumerate(value):
            inner(element, f"{path}[{index}]")

    return check


def anything(_value: Any, _path: str) -> None:
    """Accept any JSON value."""


def any_object(value: Any, path: str) -> None:
    """Accept any object."""
    if not isinstance(value, dict):
        raise wrong_type(value, path, "an object")


def fields(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """Accept objects with exactly these fields; a path of "" is the event itself."""
    known = {**required, **(optional or {})}

    def check(value: Any, path: str) -> None:
        """Look for unknown fields first, then for missing ones, then into each."""
        any_object(value, path)
        prefix = f"{path}." if path else ""
        for name in value:
            if name not in known:
                raise Invalid("unknown_parameter", f"Unknown parameter: '{prefix}{name}'.", prefix + name)
        for name in required:
            if name not in value:
                raise missing(prefix + name)
        for name, inner in value.items():
            known[name](inner, prefix + name)

    return check


def tagged(tag: str, shapes: Mapping[str, Check]) -> Check:
    """Choose the shape of an object by the string in its field `tag`."""

    def check(value: Any, path: str) -> None:
        any_object(value, path)
        where = f"{path}.{tag}" if path else tag
        if tag not in value:
            raise missing(where)
        one_of(*shapes)(value[tag], where)
        shapes[value[tag]](value, path)

    return check


def base64_audio(value: Any, path: str) -> None:
    """Accept standard base64."""
    decoded_base64(value, path)


def decoded_base64(value: Any, path: str) -> bytes:
    """Return the bytes of standard base64; raise `Invalid` otherwise."""
    if not isinstance(value, str):
        raise wrong_type(value, path, "a base64-encoded string")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        message = f"Invalid '{path}'. Expected base64-encoded audio bytes but got an invalid value."
        raise Invalid("invalid_value", message, path) from None
