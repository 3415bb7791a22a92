"""WAV files of any kind become 24 kHz mono, and loudness is measured in pure Python."""

from __future__ import annotations

import math
import wave
from array import array
from pathlib import Path

import pytest

from cli.audio import BadWav, audible_s, level, mono, read_wav, resample, write_wav
from simulator.audio import bytes_of, rms

RATE_HZ = 24_000


def tone(rate_hz: int, hz: float = 1000.0, seconds: float = 0.5, amplitude: int = 10_000) -> array[int]:
    """Return a sine."""
    count = int(rate_hz * seconds)
    return array("h", (round(amplitude * math.sin(2 * math.pi * hz * n / rate_hz)) for n in range(count)))


def write(path: Path, samples: bytes, *, rate_hz: int, channels: int = 1, width: int = 2) -> Path:
    """Write a WAV file as it is told."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(samples)
    return path


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_tone_is_the_same_at_the_other_rate(rate_hz: int) -> None:
    """A 1 kHz tone resampled to 24 kHz is, but for its ends, the tone made at 24 kHz: within 2 of 10,000."""
    resampled, made = resample(tone(rate_hz), rate_hz, RATE_HZ), tone(RATE_HZ)
    assert len(resampled) == len(made)
    assert max(abs(a - b) for a, b in zip(resampled[100:-100], made[100:-100], strict=True)) <= 2


def test_what_the_lower_rate_cannot_hold_is_taken_out() -> None:
    """A 15 kHz tone, which would come back as 9 kHz, is damped by more than 40 dB."""
    assert rms(resample(tone(48_000, hz=15_000.0), 48_000, RATE_HZ)) < rms(tone(48_000)) / 100


def test_stereo_becomes_the_average() -> None:
    """Two channels become their mean; an incomplete last frame is dropped."""
    assert mono(array("h", [100, 300, -50, 50, 7]), 2) == array("h", [200, 0])


def test_stereo_file_of_another_rate_is_read(tmp_path: Path) -> None:
    """A 48 kHz stereo file arrives as half as many mono samples, as loud as before."""
    samples = tone(48_000)
    both = array("h", (value for sample in samples for value in (sample, sample)))
    path = write(tmp_path / "stereo.wav", bytes_of(both), rate_hz=48_000, channels=2)
    read = read_wav(path)
    assert len(read) == len(samples) // 2
    assert rms(read) == pytest.approx(rms(samples), rel=0.02)


@pytest.mark.parametrize("width", [1, 3])
def test_other_sample_sizes_are_refused_with_advice(tmp_path: Path, width: int) -> None:
    """8 and 24-bit files are named as such, with the command that converts them."""
    path = write(tmp_path / "odd.wav", bytes(width * 100), rate_hz=8_000, width=width)
    with pytest.raises(BadWav, match=rf"{8 * width}-bit.*ffmpeg"):
        read_wav(path)


def test_what_is_no_wav_is_refused_with_advice(tmp_path: Path) -> None:
    """A text file and an empty WAV are refused with a sentence."""
    text = tmp_path / "words.wav"
    text.write_text("no sound here")
    with pytest.raises(BadWav, match="no PCM WAV file"):
        read_wav(text)
    with pytest.raises(BadWav, match="no sound"):
        read_wav(write(tmp_path / "empty.wav", b"", rate_hz=8_000))


def test_written_file_is_read_back(tmp_path: Path) -> None:
    """What was written is what is read."""
    samples = tone(RATE_HZ)
    write_wav(tmp_path / "answer.wav", bytes_of(samples))
    assert read_wav(tmp_path / "answer.wav") == samples


def test_only_loud_frames_are_audible() -> None:
    """Half a second of tone in a second of silence is half a second audible; a whisper below the threshold is none."""
    quiet = bytes(RATE_HZ)
    assert audible_s(quiet + bytes_of(tone(RATE_HZ)) + quiet) == pytest.approx(0.5, abs=0.02)
    assert audible_s(bytes_of(tone(RATE_HZ, amplitude=300))) == 0.0
    assert level(bytes_of(tone(RATE_HZ))) == pytest.approx(7071, abs=2)
