"""Many workers seen as one server."""

from __future__ import annotations

from typing import Any

import pytest

from core.overview import BUCKETS_MS, SHOWN_TROUBLES, histogram, overview, percentile


def row(since: float, **changes: Any) -> dict[str, Any]:
    return {"since": since, "channel": "browser", "first_audio_ms": None, "cost_usd": 0.0, **changes}


def part(**changes: Any) -> dict[str, Any]:
    """Return what a worker without sessions tells of itself."""
    return {
        "version": "1.0.0", "environment": "test", "simulated": False, "uptime_s": 10, "draining": False, "active": 0,
        "port": 8080, "limits": {"max_connections": 100}, "recent": {"ended": 0, "failed": 0, "first_audio_ms": []},
        "ended": {}, "cost_today_usd": 0.0, "pid": 1, "rss_bytes": 1, "lag_p99_ms": 0.1, "spool_pending": 0,
        "troubles": [], "sessions": [], **changes,
    }  # fmt: skip


def test_rows_and_counts_of_all_workers_are_put_together() -> None:
    """Sessions stand in the order they began and name their worker; counts, ends and cost add up."""
    first = part(sessions=[row(5.0, cost_usd=0.5, first_audio_ms=700)], active=1, ended={"idle": 1}, cost_today_usd=1.0,
                 recent={"ended": 3, "failed": 1, "first_audio_ms": [300, 400]})  # fmt: skip
    second = part(sessions=[row(2.0, channel="phone", cost_usd=-1.0)], active=1, ended={"idle": 1, "drain": 2},
                  uptime_s=99, draining=True, recent={"ended": 1, "failed": 0, "first_audio_ms": [500]})  # fmt: skip
    told = overview({"8080-0": first, "8080-1": second})
    assert [(r["since"], r["worker"]) for r in told["sessions"]] == [(2.0, "8080-1"), (5.0, "8080-0")]
    assert (told["active"], told["browser"], told["phone"], told["uptime_s"]) == (2, 1, 1, 99)
    assert told["ended"] == {"idle": 2, "drain": 2} and told["draining"] is True
    assert (told["error_rate"], told["recent_ended"], told["cost_today_usd"]) == (0.25, 4, 1.5)
    assert (told["first_audio"]["p50_ms"], told["first_audio"]["p95_ms"]) == (400, 700)
    assert [worker["worker"] for worker in told["workers"]] == ["8080-0", "8080-1"]


def test_limit_holds_over_the_workers_of_one_port() -> None:
    """Two workers of one server share its limit, a second server has its own."""
    told = overview({"8080-0": part(), "8080-1": part(), "9090-0": part(port=9090, limits={"max_connections": 7})})
    assert told["max_connections"] == 107


def test_no_worker_is_an_empty_server() -> None:
    """Without an answer there are no figures, and none is invented."""
    told = overview({})
    assert (told["version"], told["active"], told["error_rate"], told["first_audio"]["p50_ms"]) == (None, 0, None, None)


def test_newest_troubles_of_all_are_shown_in_order() -> None:
    """Of two full memories the newest hundred remain, by time."""
    early = [{"time": f"2026-11-20T10:00:{n % 60:02}.{n:03}Z", "event": "early"} for n in range(SHOWN_TROUBLES)]
    late = [{"time": f"2026-11-20T11:00:{n:02}.000Z", "event": "late"} for n in range(30)]
    told = overview({"a": part(troubles=late), "b": part(troubles=early)})["troubles"]
    assert len(told) == SHOWN_TROUBLES and [t["event"] for t in told[-30:]] == ["late"] * 30
    assert told == sorted(told, key=lambda t: t["time"]) and told[-1]["worker"] == "a"


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 2), (0.95, 4), (1.0, 4)])
def test_percentile_is_a_value_that_was_measured(share: float, value: int) -> None:
    """Nearest rank: no value is made up between two."""
    assert percentile([4, 1, 3, 2], share) == value


def test_every_delay_is_in_one_bucket() -> None:
    """A delay on an end belongs below it, one above all ends to the last bucket."""
    buckets = histogram([200, 201, 5000, 9999])
    assert sum(bucket["count"] for bucket in buckets) == 4
    assert buckets[0] == {"le_ms": 200, "count": 1} and buckets[1]["count"] == 1
    assert buckets[-1] == {"le_ms": None, "count": 1} and len(buckets) == len(BUCKETS_MS) + 1
