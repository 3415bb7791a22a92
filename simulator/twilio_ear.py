"""What a caller's ear makes of mu-law audio: where there is a voice, and the sound as a WAV file."""
from __future__ import annotations

import wave
from array import array
from pathlib import Path
from typing import BinaryIO, NamedTuple

from simulator.audio import G711_RATE_HZ, PCMU, bytes_of, decode_samples, encode_samples, resample, rms, samples_of

FRAME_BYTES = 160
FRAME_S = 0.02
# Loudness of a frame with a voice in it, of 32,768. Synthetic speech lies above 1,000, line noise below 100.
VOICE_RMS = 300.0
# Pauses between words are shorter than this; a longer one ends a stretch of speech.
PAUSE_S = 0.4


class Stretch(NamedTuple):
    """One stretch of speech, in seconds from the beginning of the audio."""

    begins_s: float
    ends_s: float


def is_voice(frame: bytes) -> bool:
    """Return whether a frame of mu-law sounds."""
    return rms(decode_samples(frame, PCMU)) > VOICE_RMS


def stretches(audio: bytes) -> list[Stretch]:
    """Return the stretches of speech in mu-law audio; pauses below 0.4 s do not part them."""
    found: list[Stretch] = []
    for number, offset in enumerate(range(0, len(audio), FRAME_BYTES)):
        if not is_voice(audio[offset : offset + FRAME_BYTES]):
            continue
        begins = number * FRAME_S
        if found and begins - found[-1].ends_s < PAUSE_S:
            found[-1] = Stretch(found[-1].begins_s, begins + FRAME_S)
        else:
            found.append(Stretch(begins, begins + FRAME_S))
    return found


def read_wav(source: str | Path | BinaryIO) -> bytes:
    """Return a WAV file as mu-law at 8 kHz; several channels are mixed.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not a WAV file of 16-bit samples.
    """
    try:
        with wave.open(str(source) if isinstance(source, Path) else source, "rb") as reader:
            channels, width, rate = reader.getnchannels(), reader.getsampwidth(), reader.getframerate()
            data = reader.readframes(reader.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"not a WAV file that can be read: {error}") from None
    if width != 2:
        raise ValueError(f"{8 * width}-bit samples; 16-bit samples are needed")
    samples = samples_of(data)
    if channels > 1:
        parts = [samples[number::channels] for number in range(channels)]
        samples = array("h", (sum(sound) // channels for sound in zip(*parts, strict=False)))
    return encode_samples(resample(samples, rate, G711_RATE_HZ), PCMU)


def write_wav(target: str | Path | BinaryIO, *channels: bytes) -> None:
    """Write mu-law audio as a 16-bit WAV file of 8 kHz, one channel each; shorter ones end in silence."""
    longest = max(map(len, channels))
    decoded = [decode_samples(audio.ljust(longest, b"\xff"), PCMU) for audio in channels]
    woven = array("h", bytes(2 * longest * len(decoded)))
    for number, samples in enumerate(decoded):
        woven[number :: len(decoded)] = samples
    with wave.open(str(target) if isinstance(target, Path) else target, "wb") as writer:
        writer.setnchannels(len(decoded))
        writer.setsampwidth(2)
        writer.setframerate(G711_RATE_HZ)
        writer.writeframes(bytes_of(woven))
