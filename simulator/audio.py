"""Audio arithmetic: G.711, resampling, loudness, bytes and milliseconds. Pure functions, standard library only.

Python 3.13 has no `audioop`; tables of 256 (decoding) and 16,384 (encoding) entries do the same work.
"""
from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Callable
from functools import cache
from operator import mul

PCM, PCMU, PCMA = "audio/pcm", "audio/pcmu", "audio/pcma"

# 24 kHz mono 16-bit little endian is 48 bytes a millisecond; G.711 is 8 kHz mono, one byte a sample.
BYTES_PER_MS = {PCM: 48, PCMU: 8, PCMA: 8}
PCM_RATE_HZ = 24_000
G711_RATE_HZ = 8_000

# Sun's G.711 reference: mu-law adds 132 (0x84) before it takes the logarithm and clips at 32,635.
_ULAW_BIAS, _ULAW_CLIP = 132, 32_635


def samples_of(data: bytes) -> array[int]:
    """Return the 16-bit samples of little-endian PCM; a trailing odd byte is dropped."""
    samples = array("h")
    samples.frombytes(data[: len(data) & ~1])
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def bytes_of(samples: array[int]) -> bytes:
    """Return 16-bit samples as little-endian PCM."""
    if sys.byteorder == "big":
        samples = samples[:]
        samples.byteswap()
    return samples.tobytes()


def _ulaw_to_linear(code: int) -> int:
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + _ULAW_BIAS) << ((code & 0x70) >> 4)
    return _ULAW_BIAS - magnitude if code & 0x80 else magnitude - _ULAW_BIAS


def _alaw_to_linear(code: int) -> int:
    code ^= 0x55
    exponent, mantissa = (code & 0x70) >> 4, (code & 0x0F) << 4
    magnitude = mantissa + 8 if exponent == 0 else (mantissa + 0x108) << (exponent - 1)
    return magnitude if code & 0x80 else -magnitude


def _linear_to_ulaw(sample: int) -> int:
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), _ULAW_CLIP) + _ULAW_BIAS
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | (magnitude >> (exponent + 3)) & 0x0F) & 0xFF


def _linear_to_alaw(sample: int) -> int:
    sign = 0x80 if sample >= 0 else 0
    magnitude = min(abs(sample), 32_767)
    exponent = max(magnitude.bit_length() - 8, 0)
    mantissa = (magnitude >> (exponent + 3 if exponent else 4)) & 0x0F
    return (sign | exponent << 4 | mantissa) ^ 0x55


@cache
def _decoding_table(format_type: str) -> tuple[int, ...]:
    decode = _ulaw_to_linear if format_type == PCMU else _alaw_to_linear
    return tuple(decode(code) for code in range(256))


@cache
def _encoding_table(format_type: str) -> tuple[int, ...]:
    """Return codes by `sample >> 2`; the negative half comes last, where Python's negative indices find it."""
    encode: Callable[[int], int] = _linear_to_ulaw if format_type == PCMU else _linear_to_alaw
    half = 8_192  # 32,768 / 4: G.711 keeps at most 14 bits, so two low bits never change the code
    return tuple(encode((i if i < half else i - 2 * half) << 2) for i in range(2 * half))


def decode_samples(data: bytes, format_type: str) -> array[int]:
    """Return 16-bit samples at the format's own rate (24 kHz for pcm, 8 kHz for G.711)."""
    if format_type == PCM:
        return samples_of(data)
    return array("h", map(_decoding_table(format_type).__getitem__, data))


def encode_samples(samples: array[int], format_type: str) -> bytes:
    """Return 16-bit samples, at the format's own rate, as bytes of the format."""
    if format_type == PCM:
        return bytes_of(samples)
    table = _encoding_table(format_type)
    return bytes(table[sample >> 2] for sample in samples)


def rms(samples: array[int]) -> float:
    """Return the root mean square of 16-bit samples, 0 to 32,768; 0 for none."""
    return math.sqrt(sum(map(mul, samples, samples)) / len(samples)) if samples else 0.0


def resample(samples: array[int], from_hz: int, to_hz: int) -> array[int]:
    """Return the same sound at another rate, by linear interpolation (24 kHz to 8 kHz: low-passed first)."""
    if from_hz == to_hz or len(samples) < 2:
        return samples[:]
    if from_hz == 3 * to_hz:
        return _third(samples)
    # Rates in whole ratios (8:24, 22.05:24) repeat: every `up`-th output lies at the same place between two inputs, so
    # each of these phases is one pass over slices, some times faster than an index per sample.
    divisor = math.gcd(from_hz, to_hz)
    up, down = to_hz // divisor, from_hz // divisor
    count = len(samples) * to_hz // from_hz
    padded = samples + array("h", [samples[-1]] * (down + 1))
    out = array("h", bytes(2 * count))
    for phase in range(min(up, count)):
        whole, part = divmod(phase * down, up)
        size = len(range(phase, count, up))
        before, after = padded[whole::down][:size], padded[whole + 1 :: down][:size]
        out[phase::up] = array("h", (a + (b - a) * part // up for a, b in zip(before, after, strict=True)))
    return out


def _third(samples: array[int]) -> array[int]:
    """Keep every third sample of a 1-2-3-2-1 average, whose first null is at 8 kHz: what would alias is damped."""
    padded = array("h", [samples[0]] * 2) + samples + array("h", [samples[-1]] * 2)
    taps = (padded[k : k + len(samples) : 3] for k in range(5))
    return array("h", ((a + 2 * b + 3 * c + 2 * d + e) // 9 for a, b, c, d, e in zip(*taps, strict=True)))


def to_pcm24(data: bytes, format_type: str) -> bytes:
    """Return 24 kHz PCM of audio in any Realtime format."""
    if format_type == PCM:
        return data[: len(data) & ~1]
    return bytes_of(resample(decode_samples(data, format_type), G711_RATE_HZ, PCM_RATE_HZ))


def from_pcm24(pcm: bytes, format_type: str) -> bytes:
    """Return 24 kHz PCM in any Realtime format."""
    if format_type == PCM:
        return pcm
    return encode_samples(resample(samples_of(pcm), PCM_RATE_HZ, G711_RATE_HZ), format_type)


def duration_ms(byte_count: int, format_type: str) -> int:
    """Return whole milliseconds of audio in so many bytes."""
    return byte_count // BYTES_PER_MS[format_type]


def silence(ms: int) -> bytes:
    """Return so many milliseconds of 24 kHz PCM silence."""
    return bytes(BYTES_PER_MS[PCM] * ms)
