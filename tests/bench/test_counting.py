"""Messages are counted in the units they were sent in."""

from __future__ import annotations

from bench.counting import EVERY, Counters, percentile


def test_merged_messages_count_as_many_as_they_hold() -> None:
    """160 bytes of audio are one frame, 320 and 480 bytes in one message are two and three."""
    counters = Counters()
    for size in (160, 320, 480):
        counters.heard((size + 2) // 3 * 4, 216)
    assert counters.read()["received"] == 6


def test_some_messages_are_timed() -> None:
    """One of a few is timed, and a reading forgets the times it told."""
    counters = Counters()
    assert sum(counters.heard(216, 216) for _ in range(EVERY * 3)) == 3
    counters.took(2_000_000)
    assert counters.read()["p50_ms"] == 2.0
    assert counters.read()["p50_ms"] is None


def test_lost_sessions_have_reasons() -> None:
    """Why sessions ended by themselves is counted for each reason."""
    counters = Counters()
    for reason in ("refused", "refused", "closed"):
        counters.lose(reason)
    assert (counters.read()["lost"], counters.read()["reasons"]) == (3, {"refused": 2, "closed": 1})


def test_percentiles_are_samples() -> None:
    """A percentile is one of the samples, in milliseconds."""
    samples = [number * 1_000_000 for number in range(1, 101)]
    assert (percentile(samples, 0.5), percentile(samples, 0.99), percentile([], 0.5)) == (51.0, 100.0, None)
