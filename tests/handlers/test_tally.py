"""What became of the sessions of a process."""

from __future__ import annotations

from handlers.tally import KEPT, SHOWN_DELAYS, WINDOW_S, Tally


class Clocks:
    """Both clocks of a tally, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.wall_now = 1_790_000_000.0

    def tally(self) -> Tally:
        return Tally(lambda: self.now, lambda: self.wall_now)


def test_failures_delays_and_reasons_are_counted() -> None:
    """Only what we or the voice service caused is a failure; a session without an answer has no delay."""
    tally = Clocks().tally()
    for reason, delay in (("client_left", 0.4), ("agent_ended", 0.6), ("idle", None), ("upstream", None)):
        tally.ended(reason, delay, 0.01)
    told = tally.as_json()
    assert told["ended"] == {"client_left": 1, "agent_ended": 1, "idle": 1, "upstream": 1}
    assert told["recent"] == {"window_s": 900, "ended": 4, "failed": 1, "first_audio_ms": [400, 600]}
    assert told["cost_today_usd"] == 0.04


def test_what_is_older_than_the_window_is_not_recent() -> None:
    """After a quarter of an hour an end only counts in the sum."""
    clocks = Clocks()
    tally = clocks.tally()
    tally.ended("internal", 0.5, 0.0)
    clocks.now += WINDOW_S + 1
    told = tally.as_json()
    assert told["recent"]["ended"] == 0 and told["ended"] == {"internal": 1}


def test_cost_begins_anew_at_midnight() -> None:
    """Cost of today is that since midnight UTC; a negative one (a resumed talk) takes nothing off."""
    clocks = Clocks()
    tally = clocks.tally()
    tally.ended("client_left", None, 1.5)
    tally.ended("client_left", None, -1.0)
    assert tally.as_json()["cost_today_usd"] == 1.5
    clocks.wall_now += 86_400
    assert tally.as_json()["cost_today_usd"] == 0.0


def test_memory_is_bounded() -> None:
    """However many sessions end, so many are remembered and told."""
    tally = Clocks().tally()
    for _ in range(KEPT + 10):
        tally.ended("client_left", 0.5, 0.0)
    told = tally.as_json()
    assert told["recent"]["ended"] == KEPT and len(told["recent"]["first_audio_ms"]) == SHOWN_DELAYS
