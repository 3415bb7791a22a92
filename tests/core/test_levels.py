"""How loud an audio message is."""

from __future__ import annotations

import base64
import json
import math
import sys
from array import array

import pytest

from core import levels
from core.levels import level

TONE = array("h", (round(16_384 * math.sin(2 * math.pi * n / 24)) for n in range(2_400)))


def message(audio: bytes, key: str = "audio") -> bytes:
    """Return a message with this audio, with the blanks of Python's JSON."""
    return json.dumps({"type": "x", key: base64.b64encode(audio).decode()}).encode()


@pytest.mark.parametrize("key", ["audio", "delta", "payload"])
def test_tone_has_its_rms(key: str) -> None:
    """A sine at half of full scale has a level of 0.5 / √2, whichever message it comes in."""
    assert level(message(TONE.tobytes(), key), "audio/pcm") == pytest.approx(0.3536, abs=0.001)


def test_silence_of_both_formats_is_zero() -> None:
    """Zeros in PCM16 and 0xff in mu-law are silence."""
    assert level(message(bytes(960)), "audio/pcm") == 0.0
    assert level(message(b"\xff" * 160, "payload"), "audio/pcmu") == 0.0


def test_loudest_mulaw_is_full_scale() -> None:
    """0x00 is mu-law's loudest byte, 32,124 of 32,768."""
    assert level(message(b"\x00" * 160, "payload"), "audio/pcmu") == pytest.approx(32_124 / 32_768, abs=0.001)
    assert level(message(b"\x80" * 160, "payload"), "audio/pcmu") == pytest.approx(32_124 / 32_768, abs=0.001)


def test_newest_tenth_of_a_second_counts() -> None:
    """Of a long message only the end is measured, in whole samples."""
    loud_then_quiet = message(TONE.tobytes() * 20 + bytes(4_800))
    assert level(loud_then_quiet, "audio/pcm") == 0.0
    assert level(message(bytes(48_000) + TONE.tobytes()), "audio/pcm") > 0.3


@pytest.mark.parametrize(
    "frame",
    [b"", b'{"type":"response.create"}', b'{"audio":"?"}', b'{"audio":"AAA="', b'{"audio":"A"}', b'{"audio":"AA=="}'],
)
def test_message_without_sound_is_silent(frame: bytes) -> None:
    """No audio, broken base64 and less than a sample are all level 0."""
    assert level(frame, "audio/pcm") == 0.0


def test_samples_are_little_endian_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a big-endian machine the samples are turned."""
    monkeypatch.setattr(levels.sys, "byteorder", "big" if sys.byteorder == "little" else "little")
    swapped = array("h", TONE)
    swapped.byteswap()
    assert level(message(swapped.tobytes()), "audio/pcm") == pytest.approx(0.3536, abs=0.001)
