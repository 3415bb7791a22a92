"""The form of a log line, as text or JSON, and what it tells of an exception; counterpart of `services/log.py`."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from types import TracebackType

MAX_LINE_BYTES = 8_192
"""Longest line: what a screen still shows and a process appends to a shared file in one piece."""

MAX_LOCATIONS = 20
"""Code locations told of one exception; the innermost are kept."""

MAX_CAUSES = 5
"""Exceptions told of one chain of causes."""

_ROOT = str(PurePath(__file__).parents[1]) + "/"


def text_line(event: str, fields: Mapping[str, object]) -> str:
    """Return `event  key=value key=value`, at most 8 KiB; text values with spaces, quotes or `=` stand in quotes."""
    line = event + (" " if fields else "") + "".join(f" {name}={_shown(value)}" for name, value in fields.items())
    raw = line.encode()
    return line if len(raw) <= MAX_LINE_BYTES else raw[: MAX_LINE_BYTES - 3].decode("utf-8", "ignore") + "…"


def json_line(head: Mapping[str, object], fields: Mapping[str, object], where: Sequence[str] = ()) -> str:
    """Return one JSON object of at most 8 KiB.

    A field named like an entry of `head` gets an underscore. When the line would be too long, long values are left out
    and `cut` is true.
    """
    named = {name + "_" * (name in head): value for name, value in fields.items()}
    line = json.dumps({**head, **named, **({"where": list(where)} if where else {})}, ensure_ascii=False)
    if len(line.encode()) <= MAX_LINE_BYTES:
        return line
    short = [(name, value) for name, value in named.items() if len(str(value)) <= 64][:40]
    heads = {name: str(value)[:512] for name, value in head.items()}
    return json.dumps({**heads, **dict(short), "cut": True}, ensure_ascii=False)


def error_fields(error: BaseException) -> dict[str, object]:
    """Return the type of an exception, and the name of its error number when the system raised it; never its text."""
    fields: dict[str, object] = {"error": type(error).__name__}
    if isinstance(error, OSError) and error.errno:
        fields["errno"] = errno.errorcode.get(error.errno, str(error.errno))
    return fields


def code_locations(error: BaseException) -> list[str]:
    """Return where an exception and its causes passed: `file:line function`, outermost first, never with values."""
    places: list[str] = []
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen and len(seen) < MAX_CAUSES:
        if seen:
            places.append(f"caused by {type(current).__name__}")
        seen.append(current)
        places += _frames(current.__traceback__)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return places


def without_texts(template: str, arguments: tuple[object, ...] | Mapping[str, object]) -> str:
    """Return a library's message with its numbers; of every other argument only the type is told."""
    try:
        if isinstance(arguments, Mapping):
            return template % {name: _number_or_type(value) for name, value in arguments.items()}
        return template % tuple(_number_or_type(value) for value in arguments)
    except (TypeError, ValueError, KeyError):
        return template


def access_fields(arguments: object) -> dict[str, object]:
    """Return status, method, path without query, and time of Tornado's access line `(status, summary, ms)`."""
    if not isinstance(arguments, tuple) or len(arguments) != 3 or not isinstance(arguments[1], str):
        return {}
    method, _, rest = arguments[1].partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    return {"status": arguments[0], "method": method, "path": path[:200], "ms": arguments[2]}


class _Type:
    """Stands in a message for a value that may hold anything."""

    def __init__(self, value: object) -> None:
        self._name = value.__name__ if isinstance(value, type) else type(value).__name__

    def __repr__(self) -> str:
        return f"<{self._name}>"


def _number_or_type(value: object) -> object:
    return value if value is None or isinstance(value, (bool, int, float)) else _Type(value)


def _frames(trace: TracebackType | None) -> list[str]:
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        path = code.co_filename.removeprefix(_ROOT).rpartition("site-packages/")[2].rpartition("/lib/")[2]
        places.append(f"{path}:{trace.tb_lineno} {code.co_qualname}")
        trace = trace.tb_next
    return places[-MAX_LOCATIONS:]


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if text and not any(mark in text for mark in ' "='):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
