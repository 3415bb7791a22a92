"""The energy detector: what opens, what closes, and how the session's settings change it."""
from __future__ import annotations

import pytest

from simulator.config import SEMANTIC_VAD, SERVER_VAD
from simulator.vad import Change, SpeechDetector, VadSettings, vad_settings

SETTINGS = VadSettings(rms_threshold=600.0, prefix_padding_ms=300, silence_ms=200)
LOUD, QUIET = 601.0, 600.0


def hear(detector: SpeechDetector, frames: str) -> list:
    """Return the changes of frames given as L (loud) and q (quiet)."""
    return [detector.hear(LOUD if frame == "L" else QUIET, SETTINGS) for frame in frames]


@pytest.mark.parametrize(("frames", "changes"), [
    ("LLL", {2: Change.STARTED}),
    ("LLqLL", {}),
    ("qqqqqqqqqqqq", {}),
    ("LLLqqqqqqqqqq", {2: Change.STARTED, 12: Change.STOPPED}),
    ("LLLqqqqqqqqqLqqqqqqqqqq", {2: Change.STARTED, 22: Change.STOPPED}),
    ("LLLqqqqqqqqqqLLL", {2: Change.STARTED, 12: Change.STOPPED, 15: Change.STARTED}),
])
def test_sixty_loud_milliseconds_open_and_silence_closes(frames, changes):
    """Three loud frames in a row open, ten quiet ones (200 ms) close; a click or a short pause does neither."""
    assert {i: change for i, change in enumerate(hear(SpeechDetector(), frames)) if change} == changes


def test_reset_forgets_half_an_opening():
    """Loud frames from before a reset do not count."""
    detector = SpeechDetector()
    hear(detector, "LL")
    detector.reset()
    assert hear(detector, "L") == [None]
    assert not detector.speaking


def test_threshold_scales_loudness():
    """The default threshold of 0.5 means an RMS of 600; a higher one wants louder speech."""
    assert vad_settings(SERVER_VAD) == VadSettings(600.0, 300, 200)
    assert vad_settings({**SERVER_VAD, "threshold": 0.8}).rms_threshold == pytest.approx(960.0)


def test_eager_sessions_wait_less():
    """The order of the semantic waits is low, then medium and auto, then high."""
    waits = {e: vad_settings({**SEMANTIC_VAD, "eagerness": e}).silence_ms for e in ("low", "medium", "auto", "high")}
    assert waits["low"] > waits["medium"] == waits["auto"] > waits["high"]
