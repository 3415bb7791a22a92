"""The playout queue: order, marks, clear and limit, by bytes instead of time."""
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simulator.twilio_playout import Played, Playout

A, B, HUSH = b"\x11", b"\x22", b"\xff"


def test_audio_is_played_in_order_and_then_silence() -> None:
    """Pieces of any size become steps of the clock; where nothing is queued there is silence."""
    queue = Playout(10_000)
    assert queue.media(A * 100) == queue.media(B * 100) == 0
    assert queue.play(160) == Played(A * 100 + B * 60, 160, [])
    assert queue.queued_bytes == 40
    assert queue.play(160) == Played(B * 40 + HUSH * 120, 40, [])
    assert queue.play(160) == Played(HUSH * 160, 0, [])


def test_mark_returns_when_everything_before_it_was_played() -> None:
    """Not when it is sent, not after what follows it."""
    queue = Playout(10_000)
    queue.media(A * 320)
    assert queue.mark("one") == []
    queue.media(B * 160)
    assert queue.mark("two") == queue.mark("three") == []
    assert [queue.play(160).marks for _ in range(3)] == [[], ["one"], ["two", "three"]]


def test_mark_without_audio_before_it_returns_at_once() -> None:
    """An empty queue has nothing to wait for."""
    assert Playout(10_000).mark("now") == ["now"]


def test_clear_drops_audio_and_returns_all_marks() -> None:
    """In order; what comes afterwards is played."""
    queue = Playout(10_000)
    queue.media(A * 320)
    queue.mark("one")
    queue.media(A * 320)
    queue.mark("two")
    assert queue.clear() == ["one", "two"]
    assert (queue.queued_bytes, queue.clear()) == (0, [])
    queue.media(B * 160)
    assert queue.play(160).audio == B * 160


def test_audio_beyond_the_limit_is_dropped() -> None:
    """The beginning is kept, and playing makes room again."""
    queue = Playout(300)
    assert queue.media(A * 200) == 0
    assert queue.media(B * 200) == 100
    assert queue.media(B) == 1
    queue.play(160)
    assert queue.media(B * 160) == 0


@given(st.lists(st.one_of(st.integers(0, 500), st.just("mark"), st.just("play")), max_size=60))
def test_every_byte_and_every_mark_comes_out_once_in_order(steps: list[int | str]) -> None:
    """Whatever the order of messages and ticks."""
    queue = Playout(10**9)
    marks, returned, heard, sent = 0, [], 0, 0
    for step in steps:
        if step == "mark":
            returned += queue.mark(str(marks))
            marks += 1
        elif step == "play":
            played = queue.play(160)
            assert len(played.audio) == 160
            heard, returned = heard + played.filled, returned + played.marks
        else:
            sent += int(step)
            queue.media(A * int(step))
        assert queue.queued_bytes == sent - heard
    returned += queue.clear()
    assert returned == [str(number) for number in range(marks)]
