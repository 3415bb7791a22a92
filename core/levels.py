"""How loud one audio message is, for whoever watches a live session; nothing is computed for anybody else.

Takes the raw text of a WebSocket message of either line: `input_audio_buffer.append` (`audio`), an audio delta
(`delta`) or a Media Streams `media` message (`payload`).
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import sys
from array import array
from operator import mul

MEASURED_CHARS = 6_400
"""Characters of base64 that are decoded at most, the newest: 100 ms of PCM16 at 24 kHz, 0.6 s of mu-law."""

FULL_SCALE = 32_768.0
"""Amplitude of the loudest 16-bit sample."""

_AUDIO = re.compile(rb'"(?:audio|delta|payload)": ?"([A-Za-z0-9+/]+=*)"')

_BIAS = 132
"""mu-law adds this before it takes the logarithm. Source: ITU-T G.711 in Sun's reference code (0x84)."""


def _linear(code: int) -> int:
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + _BIAS) << ((code & 0x70) >> 4)
    return _BIAS - magnitude if code & 0x80 else magnitude - _BIAS


_MULAW = array("h", (_linear(code) for code in range(256)))


def level(frame: bytes, audio_format: str) -> float:
    """Return the RMS of the newest tenth of a second of a message's audio, 0 (silence) to 1 (full scale).

    Args:
        frame: One message; without audio in it the level is 0.
        audio_format: `audio/pcm` (PCM16, little endian) or `audio/pcmu` (mu-law).
    """
    found = _AUDIO.search(frame)
    if found is None:
        return 0.0
    text = found.group(1)
    newest = text[max(0, (len(text) - MEASURED_CHARS) // 4 * 4) :]  # whole groups of four: each decodes by itself
    try:
        audio = base64.b64decode(newest)
    except binascii.Error:
        return 0.0
    samples = array("h", map(_MULAW.__getitem__, audio)) if audio_format == "audio/pcmu" else _pcm16(audio)
    if not samples:
        return 0.0
    return min(1.0, math.sqrt(sum(map(mul, samples, samples)) / len(samples)) / FULL_SCALE)


def _pcm16(audio: bytes) -> array[int]:
    """Return little-endian samples; groups of four characters hold three bytes, so the cut may be amid a sample."""
    odd = len(audio) % 2
    samples = array("h")
    samples.frombytes(audio[odd:])
    if sys.byteorder == "big":
        samples.byteswap()
    return samples
