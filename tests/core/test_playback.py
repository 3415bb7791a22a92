"""How much was heard is arithmetic on what was sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.playback import BYTES_PER_MS, MAX_ITEMS, Heard, Playback

PCM = BYTES_PER_MS["audio/pcm"]


def second_of_speech(latency_s: float = 0.0) -> Playback:
    """Return a playout of one second that began at 10."""
    playback = Playback(PCM, latency_s=latency_s)
    playback.received("i1", 1000 * PCM, 10.0)
    return playback


def test_audio_that_arrives_at_once_is_heard_in_real_time() -> None:
    """A second of speech sent in a moment is half heard after half a second."""
    playback = second_of_speech()
    assert playback.heard("i1", 10.5) == Heard("i1", 500, 1000)
    assert playback.heard("i1", 12.0).is_whole
    assert playback.ends_at(10.5) == pytest.approx(11.0)
    assert playback.ends_at(20.0) == 20.0
    assert playback.ended_at == pytest.approx(11.0)
    assert Playback(PCM).ended_at == 0.0


def test_the_way_to_the_ear_takes_time() -> None:
    """Nothing is heard before the latency is over."""
    assert second_of_speech(0.15).heard("i1", 10.1).heard_ms == 0
    assert second_of_speech(0.15).heard("i1", 10.65).heard_ms == 500


def test_one_item_begins_when_the_one_before_has_ended() -> None:
    """Two items sent together are heard one after the other."""
    playback = second_of_speech()
    playback.received("i2", 1000 * PCM, 10.0)
    assert playback.heard("i2", 10.9).heard_ms == 0
    assert playback.heard("i2", 11.25).heard_ms == 250


def test_a_listener_who_ran_dry_hears_the_rest_later() -> None:
    """A gap in the arrival is no speech that was heard."""
    playback = second_of_speech()
    playback.received("i1", 1000 * PCM, 14.0)
    assert playback.heard("i1", 14.5) == Heard("i1", 1500, 2000)


def test_an_interruption_settles_the_unfinished_items_only() -> None:
    """What was heard whole stays whole; what was playing or waiting is cut where it stands."""
    playback = second_of_speech()
    playback.received("i2", 1000 * PCM, 10.0)
    playback.received("i3", 1000 * PCM, 10.0)
    assert playback.interrupt(11.5) == ["i2", "i3"]
    assert [playback.heard(item, 99.0).heard_ms for item in ("i1", "i2", "i3")] == [1000, 500, 0]
    assert playback.interrupt(12.0) == []
    assert playback.ends_at(11.5) == 11.5
    assert not playback.is_cut("i1")
    assert playback.is_cut("i2")


def test_an_answer_after_an_interruption_begins_at_once() -> None:
    """The playout that was stopped does not delay the next answer."""
    playback = second_of_speech()
    playback.interrupt(10.2)
    playback.received("i2", 1000 * PCM, 10.3)
    assert playback.heard("i2", 10.8).heard_ms == 500


def test_withheld_audio_was_spoken_and_not_heard() -> None:
    """Audio the listener never got counts as spoken, so that the heard share of the text is not too large."""
    playback = second_of_speech()
    playback.interrupt(10.5)
    playback.withheld("i1", 1000 * PCM)
    assert playback.heard("i1", 99.0) == Heard("i1", 500, 2000)
    playback.withheld("i2", 500 * PCM)
    assert playback.heard("i2", 99.0) == Heard("i2", 0, 500)
    assert playback.sent_ms("i2") == 0


@pytest.mark.parametrize(("reported", "heard"), [(400, 400), (-5, 0), (99_999, 1000)])
def test_a_report_is_clamped_to_what_was_sent(reported: int, heard: int) -> None:
    """No report makes more heard than was sent, nor less than nothing."""
    assert second_of_speech().cut("i1", reported) == Heard("i1", heard, 1000)


def test_an_unknown_item_was_never_heard() -> None:
    """An item without audio has neither heard nor spoken milliseconds, cut or not."""
    playback = Playback(PCM)
    assert playback.heard("x", 1.0) == Heard("x", 0, 0)
    assert playback.sent_ms("x") == 0
    assert not playback.is_cut("x")
    assert playback.cut("x", 500) == Heard("x", 0, 0)
    assert playback.is_cut("x")


def test_only_the_latest_items_are_remembered() -> None:
    """A long conversation does not fill the memory."""
    playback = Playback(PCM)
    for number in range(MAX_ITEMS + 1):
        playback.received(f"i{number}", PCM, 1.0)
    assert playback.sent_ms("i0") == 0
    assert playback.sent_ms("i1") == 1


@pytest.mark.parametrize("audio_format", ["audio/pcmu", "audio/pcma"])
def test_a_millisecond_of_telephone_audio_has_eight_bytes(audio_format: str) -> None:
    """G.711 is 8 kHz with one byte a sample."""
    playback = Playback(BYTES_PER_MS[audio_format])
    playback.received("i1", 160, 0.0)
    assert playback.sent_ms("i1") == 20


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 96_000), st.floats(0, 3), st.booleans()), max_size=20),
    st.floats(0, 60),
)
def test_heard_is_never_more_than_sent(frames: list[tuple[str, int, float, bool]], later: float) -> None:
    """Whatever arrives whenever, the estimate stays between nothing and what was sent."""
    playback, now = Playback(PCM), 0.0
    for item, audio_bytes, pause, cuts_in in frames:
        now += pause
        playback.received(item, audio_bytes, now)
        if cuts_in:
            playback.interrupt(now)
    for item in "abc":
        heard = playback.heard(item, now + later)
        assert 0 <= heard.heard_ms <= playback.sent_ms(item) <= heard.spoken_ms


def test_the_listeners_word_corrects_the_estimate() -> None:
    """What a telephone reports as played moves that item and everything behind it, and nothing before it."""
    playback = second_of_speech()
    playback.received("i2", 1000 * PCM, 10.0)
    playback.received("i3", 1000 * PCM, 10.0)
    playback.acknowledged("i2", 0, 11.5)
    assert playback.heard("i1", 11.0).is_whole
    assert playback.heard("i2", 12.0).heard_ms == 500
    assert playback.heard("i3", 13.0).heard_ms == 500
    assert playback.ends_at(0.0) == pytest.approx(13.5)


def test_a_word_about_what_is_settled_or_unknown_changes_nothing() -> None:
    """A late mark of an item that was cut does not bring it back."""
    playback = second_of_speech()
    playback.interrupt(10.5)
    playback.acknowledged("i1", 900, 10.6)
    playback.acknowledged("x", 900, 10.6)
    assert playback.heard("i1", 11.0).heard_ms == 500
