"""Whole runs of a few sessions: everything that is sent arrives and is counted once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bench.costs import memory, setup, start
from bench.figures import STARTS
from bench.rig import NotMeasured, Rig, Window
from bench.shapes import CHANNELS, Channel
from bench.systems import System, nginx_program

SESSIONS = 5

SETTLE_S = 0.2
"""Nothing is compared here, so nothing need be calm."""

NAMES = ("direct", "ours", "naive", *(("nginx",) if nginx_program() else ()))
"""nginx is measured where it is installed; the bench does without it elsewhere."""


def waiting(name: str, channel: Channel) -> int:
    """Return how many frames may be on their way for good: our phone door joins two, and the last may be alone."""
    return SESSIONS if name == "ours" and channel == "phone" else 0


def talked(rig: Rig, system: System, channel: Channel) -> tuple[int, int, int, int]:
    """Return what clients and upstream sent and received, when all of it has arrived: up, up, down, down."""
    up, down = rig.readings()
    rig.open(system, channel, count=SESSIONS)
    rig.talk(channel)
    rig.window(system, 0.5)
    rig.hush()
    until = time.monotonic() + 10.0
    while True:
        up_now, down_now = rig.readings()
        counts = (
            down_now["sent"] - down["sent"], up_now["received"] - up["received"],
            up_now["sent"] - up["sent"], down_now["received"] - down["received"],
        )  # fmt: skip
        late_up, late_down = counts[0] - counts[1], counts[2] - counts[3]
        if (late_up <= waiting(system.name, channel) and not late_down) or time.monotonic() > until:
            rig.close()
            return counts
        time.sleep(0.02)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "tls"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Return a load with an upstream of each kind."""
    with Rig(is_tls=request.param, settle_s=SETTLE_S) as running:
        yield running


@pytest.mark.parametrize("name", NAMES)
def test_every_message_is_counted_once(rig: Rig, name: str) -> None:
    """What clients sent is what the upstream counts, and the reverse, through every system and on both channels."""
    with rig.system(name) as system:
        for channel in CHANNELS:
            sent_up, got_up, sent_down, got_down = talked(rig, system, channel)
            assert got_down == sent_down, f"{name}, {channel}"
            assert 0 <= sent_up - got_up <= waiting(name, channel), f"{name}, {channel}"
            assert min(sent_up, sent_down) > SESSIONS


def test_a_window_tells_cost_and_latency(rig: Rig) -> None:
    """A window holds processor time, messages and one-way latencies of both directions."""
    with rig.system("ours") as system:
        window = rig.measure(system, "browser", sessions=SESSIONS, seconds=0.5)
    assert window.us_per_message > 0
    assert window.up > 0
    assert window.down > window.up  # a browser hears twice as many messages as it sends
    assert all(value is not None and value > 0 for value in window.latency.values())
    assert window.as_json()["system"] == "ours"


def test_sessions_that_cannot_be_opened_are_no_measurement(rig: Rig) -> None:
    """A system that refuses its clients is not measured."""
    with rig.system("ours") as system:
        seats = system.seats("browser", 1)
        seats[0]["url"] = seats[0]["url"].replace("token=", "token=x")
        with pytest.raises(NotMeasured, match="0 of 1"):
            rig.cycle(system, "browser", count=1, seats=seats)


def test_memory_and_set_up_are_measured() -> None:
    """The costs of a session are numbers of the right kind."""
    with Rig(settle_s=SETTLE_S) as rig:
        found = memory(rig, "naive", channel="browser", sessions=SESSIONS)
        assert {"idle_kib", "talking_kib"} <= set(found)
        assert setup(rig, "naive", channel="browser", sessions=SESSIONS)["cpu_ms"] > 0


def test_memory_at_start_depends_on_where_rows_are_kept() -> None:
    """A server with Supabase loads no SQL library, one with SQLite none of Supabase's."""
    with Rig(settle_s=SETTLE_S) as rig:
        sqlite, supabase = (start(rig, name, channel="browser", sessions=0)["start_kib"] for name in STARTS)
    assert 30_000 < supabase < sqlite


def test_calm_is_when_nothing_else_runs_and_all_arrives() -> None:
    """A window is disturbed by other programs, and by messages that wait for a core."""
    calm = Window("ours", 0.1, 1.0, up=50, down=50, offered=100, latency={}, load_cpu_s=0.1, others_share=0.1)
    assert calm.is_calm
    assert not replace(calm, others_share=0.5).is_calm
    assert not replace(calm, up=40).is_calm


def test_sessions_can_be_opened_beside_others(rig: Rig) -> None:
    """A second crowd joins the first, and all of them are closed together."""
    with rig.system("direct") as system:
        rig.open(system, "browser", count=2)
        rig.open(system, "browser", count=3)
        assert rig.readings()[0]["sessions"] == 5
        rig.close()
        assert rig.readings()[0]["sessions"] == 0
