"""Plain tables and figures for a terminal."""

from __future__ import annotations

from collections import deque

import pytest

from cli.table import age, delay, fitted, money, table
from cli.top import Traces, lines, trace
from core.overview import overview


def test_columns_are_as_wide_as_needed() -> None:
    """Numbers stand to the right; what could colour a terminal is written as an escape."""
    assert table(("NAME", "N"), [("a\x1b[31m", "1"), ("b", "22")], right=frozenset({1})) == [
        "NAME        N", "a\\x1b[31m   1", "b          22",
    ]  # fmt: skip


def test_lines_never_take_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is cut where the terminal ends."""
    monkeypatch.setenv("COLUMNS", "5")
    assert fitted(["123456789"]) == ["12345"]


@pytest.mark.parametrize(
    ("told", "words"),
    [(age(7), "0:07"), (age(3_723), "1:02:03"), (age(270_000), "3 d 03:00"), (money(0), "$0.00"),
     (money(0.0123), "$0.0123"), (money(12.345), "$12.35"), (delay(None), "-"), (delay(640), "640 ms")],
)  # fmt: skip
def test_figures_are_words(told: str, words: str) -> None:
    """Durations, money and delays read as people write them."""
    assert told == words


def test_trace_shows_eight_looks_newest_at_the_right() -> None:
    """Silence is blank, loud speech a full block, more than that no more."""
    assert trace(deque([0.0, 0.02, 0.35, 1.0])) == "     ▂██"


def test_sessions_that_are_gone_leave_no_trace() -> None:
    """Only what is live is remembered."""
    traces = Traces()
    traces.add([{"connection_id": "a", "level_in": 0.35, "level_out": 0.0}])
    traces.add([{"connection_id": "a", "level_in": 0.0, "level_out": 0.35}])
    assert traces.of({"connection_id": "a"}) == ("      █ ", "       █")
    traces.add([])
    with pytest.raises(KeyError):
        traces.of({"connection_id": "a"})


def test_empty_server_is_no_table() -> None:
    """Without a session a sentence says so."""
    assert lines(overview({}), Traces())[-1] == "nobody talks at the moment"
