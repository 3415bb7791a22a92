"""The caller's audio: the media clock, its holes, and what waits."""

from __future__ import annotations

import pytest

from core.caller_audio import HELD_BYTES, CallerAudio

FRAME = bytes(160)


@pytest.mark.parametrize(
    ("timestamp_ms", "gap_ms"),
    [(20, 0), (21, 0), (39, 0), (40, 20), (520, 500), (10_020, 10_000), (70_000, 10_000), (0, 0)],
)
def test_a_hole_in_the_media_clock_is_silence(timestamp_ms: int, gap_ms: int) -> None:
    """A lost frame or more is filled with the quietest byte, up to ten seconds; a clock that goes back is not."""
    audio = CallerAudio()
    assert audio.filled(0, FRAME) == FRAME
    assert audio.filled(timestamp_ms, FRAME) == b"\xff" * gap_ms * 8 + FRAME


def test_the_first_frame_has_no_hole_before_it() -> None:
    """The stream's clock may begin anywhere."""
    assert CallerAudio().filled(5_000, FRAME) == FRAME


def test_a_repeated_frame_makes_no_hole_behind_it() -> None:
    """The media clock never goes back."""
    audio = CallerAudio()
    for timestamp_ms in (0, 20, 0):
        audio.took(timestamp_ms, 160)
    assert audio.gap_ms(40) == 0


def test_the_last_ten_seconds_are_kept() -> None:
    """Of more than ten seconds the oldest is dropped, byte by byte; what was given is kept no longer."""
    audio = CallerAudio()
    assert not audio
    audio.hold(b"old")
    audio.hold(b"x" * (HELD_BYTES - 2))
    assert audio
    assert audio.release() == b"ld" + b"x" * (HELD_BYTES - 2)
    assert not audio and audio.release() == b""
