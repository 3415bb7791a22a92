"""The caller's audio: the media clock, its holes, and what waits."""

from __future__ import annotations

from base64 import b64decode, b64encode

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


def test_frames_are_joined_to_pieces() -> None:
    """Of three frames the third completes a piece of 60 ms; not a byte is lost or changed."""
    audio = CallerAudio(60)
    frames = [bytes([number]) * 160 for number in range(3)]
    pieces = [audio.take(20 * number, b64encode(frame)) for number, frame in enumerate(frames)]
    assert pieces[:2] == [b"", b""] and b64decode(pieces[2] or b"") == b"".join(frames)


def test_pieces_of_one_frame_are_not_read() -> None:
    """With 20 ms the base64 goes on as it came."""
    payload = b64encode(FRAME)
    assert CallerAudio(20).take(0, payload) is payload


def test_what_waits_to_be_joined_goes_before_what_comes() -> None:
    """A hole, or audio that has to be kept, takes the frames before it along."""
    audio = CallerAudio(40)
    assert audio.take(0, b64encode(b"a" * 160)) == b""
    assert audio.filled(40, b"c" * 160) == b"a" * 160 + b"\xff" * 160 + b"c" * 160
    assert audio.take_joined() == b""


def test_what_does_not_simply_go_on_is_not_taken() -> None:
    """A hole before a frame, no audio in it, or audio that must go first: nothing of the frame is counted."""
    audio, payload = CallerAudio(20), b64encode(FRAME)
    assert audio.take(0, payload) == payload
    assert audio.take(40, payload) is None and audio.take(20, b"") is None
    audio.hold(b"kept")
    assert audio.take(20, payload) is None
    audio.release()
    assert audio.take(20, payload) == payload
