"""What a conversation was set up with, and the session configuration that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.agent import CUSTOM_VOICE, Agent
from core.instructions import instructions_for
from core.realtime import Event
from core.records import Channel
from core.tools import definitions

TURN_DETECTION: Mapping[str, Any] = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "create_response": True,
    "interrupt_response": True,
}
"""The documented defaults, always sent: servers were seen to use another silence (reference, section 4)."""

TRUNCATION: Mapping[str, Any] = {"type": "retention_ratio", "retention_ratio": 0.8}
"""Drops the oldest fifth when the context is full, so that the cache of the rest survives (reference, section 10)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything decided before a conversation begins.

    Attributes:
        audio_format: `audio/pcm` (24 kHz PCM16, browsers) or `audio/pcmu` (8 kHz mu-law, telephones).
        max_session_s: Longest session.
        idle_s: Longest time without speech or client events.
        budget_usd: The user's budget per day; None for no limit.
        spent_usd: What the user has spent today before this session.
        greets: Whether the agent speaks first.
        interruptible: Whether the person's speech may cut the agent's.
        wall_offset_s: Unix time minus the monotonic clock, to read the API's `expires_at`.
    """

    conversation_id: str
    agent: Agent
    voice: str
    model: str
    transcription_model: str
    channel: Channel = "browser"
    audio_format: str = "audio/pcm"
    max_session_s: float = 1800.0
    idle_s: float = 300.0
    budget_usd: float | None = None
    spent_usd: float = 0.0
    greets: bool = False
    interruptible: bool = True
    wall_offset_s: float = 0.0


def session_config(plan: Plan, overrides: Mapping[str, Any]) -> Event:
    """Return the whole session of an agent, with what the client was allowed to change laid over it."""
    agent = plan.agent
    session: Event = {
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": instructions_for(agent),
        "audio": {"input": _audio_input(plan), "output": _audio_output(plan)},
        "tools": definitions(agent, channel=plan.channel),
        "tool_choice": "auto",
        "truncation": dict(TRUNCATION),
    }
    if agent.max_output_tokens is not None:
        session["max_output_tokens"] = agent.max_output_tokens
    return merged(session, overrides)


def reduced_config(plan: Plan) -> Event:
    """Return what remains when the whole session was refused: who the agent is, and the format of the line."""
    audio_format = _format(plan)
    return {
        "type": "realtime",
        "instructions": instructions_for(plan.agent),
        "tools": definitions(plan.agent, channel=plan.channel),
        "tool_choice": "auto",
        "audio": {"input": {"format": audio_format}, "output": {"format": audio_format}},
    }


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Event:
    """Return base with changes laid over it, objects field by field, as `session.update` does it.

    Settings that are chosen by their `type`, such as turn detection, are replaced as a whole when the type changes.
    """
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and value.get("type") in (None, old.get("type")):
            result[key] = merged(old, value)
        else:
            result[key] = value
    return result


def _format(plan: Plan) -> Event:
    return {"type": "audio/pcm", "rate": 24000} if plan.audio_format == "audio/pcm" else {"type": plan.audio_format}


def _audio_input(plan: Plan) -> Event:
    agent = plan.agent
    transcription: Event = {"model": plan.transcription_model}
    if agent.style.language:
        transcription["language"] = agent.style.language.split("-")[0].lower()
    noise = agent.call_settings.noise_reduction
    return {
        "format": _format(plan),
        "transcription": transcription,
        "noise_reduction": {"type": noise} if noise else None,
        "turn_detection": _turn_detection(plan),
    }


def _turn_detection(plan: Plan) -> Event | None:
    chosen = plan.agent.turn_detection
    detection: Event = dict(TURN_DETECTION)
    if chosen is not None:
        if chosen["type"] == "none":
            return None
        detection = {**TURN_DETECTION, **chosen} if chosen["type"] == "server_vad" else dict(chosen)
    return detection if plan.interruptible else {**detection, "interrupt_response": False}


def _audio_output(plan: Plan) -> Event:
    voice: Any = {"id": plan.voice} if CUSTOM_VOICE.fullmatch(plan.voice) else plan.voice
    return {"format": _format(plan), "voice": voice, "speed": plan.agent.style.speed}
