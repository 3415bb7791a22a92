"""Sound in and out of WAV files: 24 kHz mono PCM16, the format of the Realtime API. Pure Python."""

from __future__ import annotations

import math
import wave
from array import array
from operator import mul
from pathlib import Path

from simulator.audio import PCM_RATE_HZ, rms, samples_of

FRAME_MS = 20
FRAME_SAMPLES = PCM_RATE_HZ * FRAME_MS // 1000

AUDIBLE_RMS = 300.0
"""Level of a 20 ms frame that counts as sound, of 32,768: -41 dB below full scale. Speech at a usual distance is at
1,000 to 8,000, the noise of a quiet room below 100."""

KERNEL_HALF = 16
"""Samples on each side that make one resampled sample: beyond 16, better damping than 60 dB buys nothing in speech."""


class BadWav(Exception):
    """Raised when a file is no sound that can be read; the text says what to do."""


def read_wav(path: Path) -> array[int]:
    """Return a WAV file as 24 kHz mono samples.

    Args:
        path: PCM, 16 bits, any rate; of several channels the average is taken.

    Raises:
        BadWav: If it is another format, or empty.
        OSError: If it cannot be read.
    """
    try:
        with wave.open(str(path), "rb") as file:
            width, rate_hz, channels = file.getsampwidth(), file.getframerate(), file.getnchannels()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise BadWav(f"{path.name} is no PCM WAV file ({error}). {_convert(path)}") from None
    if width != 2:
        raise BadWav(f"{path.name} has {8 * width}-bit samples, 16 are needed. {_convert(path)}")
    samples = mono(samples_of(data), channels)
    if not samples:
        raise BadWav(f"{path.name} holds no sound.")
    return resample(samples, rate_hz, PCM_RATE_HZ)


def _convert(path: Path) -> str:
    return f"Convert it: ffmpeg -i {path.name} -ac 1 -ar 24000 -c:a pcm_s16le question.wav"


def write_wav(path: Path, pcm: bytes) -> None:
    """Write 24 kHz mono PCM16; raises OSError."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(PCM_RATE_HZ)
        file.writeframes(pcm)


def mono(samples: array[int], channels: int) -> array[int]:
    """Return the average of interleaved channels; an incomplete last frame is dropped."""
    if channels == 1:
        return samples
    whole = len(samples) - len(samples) % channels
    parts = (samples[n:whole:channels] for n in range(channels))
    return array("h", (sum(frame) // channels for frame in zip(*parts, strict=True)))


def resample(samples: array[int], from_hz: int, to_hz: int) -> array[int]:
    """Return the same sound at another rate, low-passed below half of the lower rate (windowed sinc)."""
    if from_hz == to_hz:
        return samples
    divisor = math.gcd(from_hz, to_hz)
    up, down = to_hz // divisor, from_hz // divisor
    half = math.ceil(KERNEL_HALF * max(1.0, from_hz / to_hz))
    kernels = [_kernel(phase / up, half, min(1.0, to_hz / from_hz)) for phase in range(up)]
    padded = array("h", bytes(2 * half)) + samples + array("h", bytes(2 * (half + 1)))
    out = array("h")
    for index in range(len(samples) * up // down):
        whole, phase = divmod(index * down, up)
        value = round(sum(map(mul, kernels[phase], padded[whole + 1 : whole + 1 + 2 * half])))
        out.append(max(-32_768, min(32_767, value)))
    return out


def _kernel(fraction: float, half: int, cutoff: float) -> list[float]:
    """Return the weights of the `2 * half` samples around a place `fraction` after the sample before it.

    Args:
        fraction: 0 to 1.
        half: Samples on each side.
        cutoff: Of the low-pass, 1 for half the input's rate.
    """
    weights = []
    for n in range(1 - half, half + 1):
        at = n - fraction
        window = 0.5 + 0.5 * math.cos(math.pi * at / half) if abs(at) < half else 0.0
        angle = math.pi * at * cutoff
        weights.append(window * (math.sin(angle) / angle if angle else 1.0))
    total = sum(weights)  # normalised, so that a constant stays what it is
    return [weight / total for weight in weights]


def audible_s(pcm: bytes) -> float:
    """Return how many seconds of 24 kHz PCM16 are loud enough to be heard."""
    samples = samples_of(pcm)
    frames = (samples[at : at + FRAME_SAMPLES] for at in range(0, len(samples), FRAME_SAMPLES))
    return sum(rms(frame) >= AUDIBLE_RMS for frame in frames) * FRAME_MS / 1000


def level(pcm: bytes) -> int:
    """Return the loudness of 24 kHz PCM16 as RMS, 0 to 32,768."""
    return round(rms(samples_of(pcm)))
