"""How long each side was heard."""

from __future__ import annotations

from core.playback import Playback
from core.voiced import Voiced


def test_the_caller_is_counted_as_the_service_heard_it() -> None:
    """Speech is counted when both its ends are known."""
    voiced = Voiced(Playback(8))
    voiced.speech_stopped({"audio_end_ms": 500})
    voiced.speech_started({"audio_start_ms": 1000})
    voiced.speech_stopped({"audio_end_ms": 2500})
    voiced.speech_stopped({"audio_end_ms": 9000})
    voiced.speech_started({"audio_start_ms": True})
    voiced.speech_stopped({"audio_end_ms": 9500})
    voiced.speech_started({"audio_start_ms": 20})
    voiced.speech_stopped({"audio_end_ms": 10})
    voiced.speech_started({"audio_start_ms": 20})
    voiced.speech_stopped({})
    assert voiced.as_json(0.0) == {"caller": 1500, "agent": 0}


def test_the_agent_is_counted_as_the_caller_heard_it() -> None:
    """What waits to be played and what was cut off does not count."""
    playback = Playback(8, latency_s=0.0)
    voiced = Voiced(playback)
    playback.received("i1", 16_000, 10.0)
    voiced.sent(2000)
    assert voiced.as_json(10.5)["agent"] == 500
    playback.interrupt(11.5)
    voiced.flushed({"i1"}, 11.5)
    assert voiced.as_json(11.5)["agent"] == voiced.as_json(60.0)["agent"] == 1500
