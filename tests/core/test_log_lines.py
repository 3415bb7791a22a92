"""Lines have one form, text or JSON; exceptions and library messages are told without their texts."""

from __future__ import annotations

import json

import pytest

from core.log_lines import (
    MAX_CAUSES,
    MAX_LINE_BYTES,
    access_fields,
    code_locations,
    error_fields,
    json_line,
    text_line,
    without_texts,
)


def test_event_without_fields_stands_alone() -> None:
    """Without fields a line is its event, without trailing spaces."""
    assert text_line("server stopped", {}) == "server stopped"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (True, "true"),
        (False, "false"),
        (3, "3"),
        (1.5, "1.5"),
        ("a", "a"),
        ("", '""'),
        ("a b", '"a b"'),
        ('a"b', '"a\\"b"'),
        ("a=b", '"a=b"'),
        ("a\\ b", '"a\\\\ b"'),
    ],
)
def test_value_is_quoted_when_it_could_be_misread(value: object, shown: str) -> None:
    """Texts that are empty or hold spaces, quotes or `=` stand in quotes."""
    assert text_line("e", {"k": value}) == f"e  k={shown}"


def test_long_line_is_cut_between_characters() -> None:
    """A line over 8 KiB is cut at a character's border and marked."""
    line = text_line("e", {"k": "ö" * 9_000})
    assert len(line.encode()) <= MAX_LINE_BYTES
    assert line.endswith("ö…")


def test_json_line_keeps_head_and_short_fields_when_cut() -> None:
    """A long JSON line stays an object of at most 8 KiB with its head and its short fields."""
    line = json_line({"event": "e", "level": "info"}, {"level": "x", "long": "ö" * 9_000, "n": 1}, ["a:1 f"])
    assert json.loads(line) == {"event": "e", "level": "info", "level_": "x", "n": 1, "cut": True}
    assert json.loads(json_line({"event": "e"}, {"n": 1}, ["a:1 f"])) == {"event": "e", "n": 1, "where": ["a:1 f"]}


def test_error_of_the_system_is_named_by_its_number() -> None:
    """An OSError with a number tells its symbol; other exceptions only their type."""
    assert error_fields(OSError(28, "text")) == {"error": "OSError", "errno": "ENOSPC"}
    assert error_fields(OSError("text")) == {"error": "OSError"}
    assert error_fields(KeyError("text")) == {"error": "KeyError"}


def test_locations_follow_causes_but_not_for_ever() -> None:
    """The chain of causes is followed for at most MAX_CAUSES exceptions, each once; `from None` ends it."""
    chain: BaseException = ValueError("0")
    for number in range(10):
        outer = ValueError(str(number))
        outer.__cause__ = chain
        chain = outer
    assert code_locations(chain) == ["caused by ValueError"] * (MAX_CAUSES - 1)
    circle = KeyError("a")
    circle.__context__ = KeyError("b")
    circle.__context__.__context__ = circle
    assert code_locations(circle) == ["caused by KeyError"]
    circle.__suppress_context__ = True
    assert code_locations(circle) == []


def test_location_is_file_line_and_function() -> None:
    """A place is the file inside the project, the line and the function's full name."""
    try:
        json.loads("{")
    except ValueError as error:
        places = code_locations(error)
    assert places[0].startswith("tests/core/test_log_lines.py:")
    assert places[0].endswith(" test_location_is_file_line_and_function")
    assert "json/decoder.py:" in places[-1]


def test_library_message_keeps_numbers_only() -> None:
    """Numbers, truth values and None are filled in; of everything else only the type; a bad template stays."""
    assert without_texts("%d of %s: %r %s", (3, "said", ValueError("said"), None)) == "3 of <str>: <ValueError> None"
    assert without_texts("%(a)s %(b)d", {"a": int, "b": 2}) == "<int> 2"
    assert without_texts("%d", ("said",)) == "%d"


def test_access_line_loses_its_query() -> None:
    """Of Tornado's access line status, method, path and time are kept."""
    fields = access_fields((404, "GET /a?token=canary (127.0.0.1)", 1.5))
    assert fields == {"status": 404, "method": "GET", "path": "/a", "ms": 1.5}
    assert access_fields(("other",)) == {}
    assert access_fields(None) == {}
