"""Speech is found in mu-law audio; WAV files of any rate become mu-law and back."""
from __future__ import annotations

import io
import wave
from array import array
from pathlib import Path

import pytest

from simulator.audio import PCMU, encode_samples
from simulator.twilio_ear import Stretch, is_voice, read_wav, stretches, write_wav
from tests.fakes.phone_server import TONE

HUSH = b"\xff" * 160


def test_stretches_are_parted_by_long_pauses_only() -> None:
    """A pause of 0.2 s is inside a sentence, one of 0.5 s ends it."""
    audio = HUSH * 10 + TONE * 20 + HUSH * 10 + TONE * 20 + HUSH * 25 + TONE * 5
    found = stretches(audio)
    assert [tuple(round(place, 2) for place in stretch) for stretch in found] == [(0.2, 1.2), (1.7, 1.8)]
    assert isinstance(found[0], Stretch)


def test_noise_of_a_line_is_no_voice() -> None:
    """Silence and the quietest codes are not heard; a tone is."""
    assert not is_voice(HUSH)
    assert not is_voice(encode_samples(array("h", [50, -50] * 80), PCMU))
    assert is_voice(TONE)


def test_wav_becomes_mulaw_and_back(tmp_path: Path) -> None:
    """At 8 kHz mono nothing changes but the last bit of mu-law."""
    path = tmp_path / "a.wav"
    write_wav(path, TONE * 3)
    assert read_wav(path) == read_wav(str(path)) == TONE * 3
    assert read_wav(io.BytesIO(path.read_bytes())) == TONE * 3


def test_stereo_of_another_rate_is_mixed_and_resampled() -> None:
    """24 kHz stereo becomes a third of the samples."""
    sound = io.BytesIO()
    with wave.open(sound, "wb") as writer:
        writer.setnchannels(2)
        writer.setsampwidth(2)
        writer.setframerate(24_000)
        writer.writeframes(array("h", [8000, 4000] * 2400).tobytes())
    sound.seek(0)
    assert read_wav(sound) == encode_samples(array("h", [6000] * 800), PCMU)


def test_two_channels_end_together() -> None:
    """The shorter one ends in silence."""
    sound = io.BytesIO()
    write_wav(sound, TONE * 2, TONE)
    sound.seek(0)
    with wave.open(sound) as reader:
        assert (reader.getnchannels(), reader.getnframes()) == (2, 320)


@pytest.mark.parametrize("content", [b"", b"no wav", b"RIFF\x00\x00\x00\x00WAVE"])
def test_anything_else_is_a_value_error(content: bytes) -> None:
    """The text says what is wrong."""
    with pytest.raises(ValueError, match="WAV"):
        read_wav(io.BytesIO(content))


def test_samples_of_another_width_are_refused() -> None:
    """8-bit files exist; they are not read as noise."""
    sound = io.BytesIO()
    with wave.open(sound, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(1)
        writer.setframerate(8_000)
        writer.writeframes(b"\x80" * 80)
    sound.seek(0)
    with pytest.raises(ValueError, match="8-bit"):
        read_wav(sound)
