"""Audio arithmetic, compared with values of the G.711 standard and with known signals."""
from __future__ import annotations

import math
from array import array

import pytest

from simulator.audio import (
    PCM,
    PCMA,
    PCMU,
    bytes_of,
    decode_samples,
    duration_ms,
    encode_samples,
    from_pcm24,
    resample,
    rms,
    samples_of,
    silence,
    to_pcm24,
)


def tone(hz: float, rate: int, ms: int, level: int = 10_000) -> array:
    """Return a sine."""
    count = rate * ms // 1000
    return array("h", (round(level * math.sin(2 * math.pi * hz * i / rate)) for i in range(count)))


@pytest.mark.parametrize(("format_type", "code", "sample"), [
    (PCMU, 0xFF, 0), (PCMU, 0x80, 32_124), (PCMU, 0x00, -32_124), (PCMU, 0xF0, 120),
    (PCMA, 0xD5, 8), (PCMA, 0xAA, 32_256), (PCMA, 0x2A, -32_256), (PCMA, 0x55, -8),
])
def test_g711_codes_have_the_standard_values(format_type, code, sample):
    """Silence and full scale of mu-law and A-law decode to the values of the reference tables."""
    assert list(decode_samples(bytes([code]), format_type)) == [sample]


@pytest.mark.parametrize("format_type", [PCMU, PCMA])
def test_every_g711_code_survives_a_round_trip(format_type):
    """Decoding and encoding again gives the same sound for all 256 codes."""
    codes = bytes(range(256))
    samples = decode_samples(codes, format_type)
    assert decode_samples(encode_samples(samples, format_type), format_type) == samples


def test_g711_quantisation_is_small():
    """Speech-like levels come back within about 4 percent."""
    original = tone(440, 8_000, 100)
    for format_type in (PCMU, PCMA):
        back = decode_samples(encode_samples(original, format_type), format_type)
        assert all(abs(a - b) <= max(abs(a) * 0.04, 16) for a, b in zip(original, back, strict=True))


@pytest.mark.parametrize(("from_hz", "to_hz"), [(8_000, 24_000), (22_050, 24_000), (24_000, 8_000), (16_000, 8_000)])
def test_resampling_keeps_length_and_loudness(from_hz, to_hz):
    """A 440 Hz tone has the same duration and nearly the same RMS at another rate."""
    before = tone(440, from_hz, 500)
    after = resample(before, from_hz, to_hz)
    assert len(after) == pytest.approx(to_hz // 2, abs=1)
    assert rms(after) == pytest.approx(rms(before), rel=0.03)


def test_what_would_alias_is_damped():
    """A 7 kHz tone, which 8 kHz audio cannot hold, loses most of its level on the way down."""
    assert rms(resample(tone(7_000, 24_000, 100), 24_000, 8_000)) < 0.15 * rms(tone(7_000, 24_000, 100))


def test_formats_convert_both_ways():
    """24 kHz PCM becomes a sixth in bytes as G.711 and comes back as long."""
    pcm = bytes_of(tone(300, 24_000, 200))
    phone = from_pcm24(pcm, PCMU)
    assert (len(phone), duration_ms(len(phone), PCMU)) == (1_600, 200)
    assert duration_ms(len(to_pcm24(phone, PCMU)), PCM) == 200
    assert from_pcm24(pcm, PCM) == to_pcm24(pcm, PCM) == pcm


def test_edges_of_audio():
    """No samples have no loudness; an odd byte is dropped; silence is silent."""
    assert rms(array("h")) == 0.0
    assert list(samples_of(b"\x01\x00\x7f")) == [1]
    assert (len(silence(10)), rms(samples_of(silence(10)))) == (480, 0.0)
    assert list(resample(array("h", [5]), 8_000, 24_000)) == [5]
