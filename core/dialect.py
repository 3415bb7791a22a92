"""The two dialects clients may speak, and the one table between them.

`ga` are OpenAI's own event names; `preview` are the names of the first Realtime generation, which browsers of both
predecessors expect. Upstream always speaks `ga`. In both dialects agent instructions and tools are taken out.
Source: OpenAI Realtime reference, section 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from core.realtime import Event, encode

Dialect = Literal["ga", "preview"]

PREVIEW_NAMES: Mapping[str, str] = {
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "conversation.item.added": "conversation.item.created",
}

NOT_IN_PREVIEW = frozenset({"conversation.item.done", "input_audio_buffer.timeout_triggered"})
"""Events the first generation does not have; its clients would trip over them."""

INTERNAL = ("mcp_", "response.mcp_", "response.function_call_arguments.")
"""Families of events about what the server does on the agent's behalf."""

FORMATS = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}
PARTS = {"output_audio": "audio", "output_text": "text"}

SECRETS = ("instructions", "tools", "tool_choice", "prompt", "tracing", "include", "parallel_tool_calls", "input")
"""What an agent's session, or one response of it, holds that its clients must not see."""

_AUDIO_DELTA = b"response.output_audio.delta"
_AUDIO_DELTA_PREVIEW = b"response.audio.delta"
_WORDS = b'"response.output_audio_transcript.delta"'
_WORDS_PREVIEW = b'"response.audio_transcript.delta"'


def rename_audio_delta(frame: bytes) -> bytes:
    """Return an audio delta in the preview dialect by replacing bytes in its head.

    The first occurrence is the event's type: `core.realtime.audio_delta` has made sure that only ids stand beside it.
    """
    return frame.replace(_AUDIO_DELTA, _AUDIO_DELTA_PREVIEW, 1)


def rename_words(frame: bytes) -> bytes:
    """Return a piece of an answer's transcript in the preview dialect, as `rename_audio_delta` does."""
    return frame.replace(_WORDS, _WORDS_PREVIEW, 1)


def for_client(event: Event, dialect: Dialect) -> Event | None:
    """Return an upstream event as the client may see it, or None when it is none of the client's business."""
    kind = event["type"]
    if kind.startswith(INTERNAL) or kind == "conversation.created" or _about_a_tool(event):
        return None
    seen = dict(event)
    if "session" in seen:
        seen["session"] = _session(seen["session"], dialect)
    if isinstance(seen.get("response"), dict):
        seen["response"] = _response(seen["response"], dialect)
    if dialect == "ga":
        return seen
    if kind in NOT_IN_PREVIEW:
        return None
    seen["type"] = PREVIEW_NAMES.get(kind, kind)
    if isinstance(seen.get("item"), dict):
        seen["item"] = _preview_item(seen["item"])
    return seen


def frame_for_client(frame: bytes, event: Event, dialect: Dialect) -> bytes | None:
    """Return an upstream event's frame as the client may see it, or None when it is none of the client's business.

    Nine of ten events hold nothing that must be taken out or changed but for their name: their frame goes on with
    another head, and is not written anew.

    Args:
        frame: As it came.
        event: What was read from it.
        dialect: The client's.
    """
    kind = event["type"]
    if "session" not in event and "response" not in event and "item" not in event:
        if kind.startswith(INTERNAL) or kind == "conversation.created":
            return None
        name = kind if dialect == "ga" else None if kind in NOT_IN_PREVIEW else PREVIEW_NAMES.get(kind, kind)
        if name is None or name == kind:
            return frame if name else None
        head = b'{"type":"' + kind.encode() + b'"'
        if frame.startswith(head):
            return b'{"type":"' + name.encode() + b'"' + frame[len(head) :]
    shown = for_client(event, dialect)
    return None if shown is None else encode(shown)


def from_client(event: Event, dialect: Dialect) -> Event:
    """Return a client event in upstream's names; unknown fields are kept for the policy to refuse."""
    if dialect == "ga":
        return event
    seen = dict(event)
    if event["type"] == "session.update" and isinstance(event.get("session"), dict):
        seen["session"] = _session_from_preview(event["session"])
    if event["type"] == "response.create" and isinstance(event.get("response"), dict):
        seen["response"] = _response_from_preview(event["response"])
    return seen


def _about_a_tool(event: Event) -> bool:
    item = event.get("item")
    return isinstance(item, dict) and item.get("type") not in (None, "message")


def _session(session: Any, dialect: Dialect) -> Any:
    if not isinstance(session, dict):
        return {}
    shown = {key: value for key, value in session.items() if key not in SECRETS}
    return shown if dialect == "ga" else _preview_session(shown)


def _preview_session(session: Event) -> Event:
    """Flatten a GA session; `type` and `audio` have no place in the older shape."""
    given, spoken = _inner(session, "audio", "input"), _inner(session, "audio", "output")
    flat = {key: value for key, value in session.items() if key not in {"audio", "type"}}
    if "output_modalities" in flat:
        flat["modalities"] = _modalities(flat.pop("output_modalities"))
    if "max_output_tokens" in flat:
        flat["max_response_output_tokens"] = flat.pop("max_output_tokens")
    for name, source, key in (
        ("input_audio_format", given, "format"),
        ("output_audio_format", spoken, "format"),
        ("voice", spoken, "voice"),
        ("speed", spoken, "speed"),
        ("input_audio_transcription", given, "transcription"),
        ("turn_detection", given, "turn_detection"),
        ("input_audio_noise_reduction", given, "noise_reduction"),
    ):
        if key in source:
            flat[name] = _format(source[key]) if key == "format" else source[key]
    return flat


def _inner(holder: Event, *keys: str) -> Event:
    """Return an object inside objects; empty where something else is."""
    value: Any = holder
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _modalities(modalities: Any) -> Any:
    return ["text", "audio"] if modalities == ["audio"] else modalities


def _format(value: Any) -> Any:
    return FORMATS.get(str(value.get("type")), value) if isinstance(value, dict) else value


def _response(response: Event, dialect: Dialect) -> Event:
    shown = {key: value for key, value in response.items() if key not in SECRETS}
    if isinstance(shown.get("output"), list):
        shown["output"] = [item for item in shown["output"] if isinstance(item, dict) and item.get("type") == "message"]
    if dialect == "ga":
        return shown
    if isinstance(shown.get("output"), list):
        shown["output"] = [_preview_item(item) for item in shown["output"]]
    if "output_modalities" in shown:
        shown["modalities"] = _modalities(shown.pop("output_modalities"))
    spoken = _inner(shown, "audio", "output")
    shown.pop("audio", None)
    if "voice" in spoken:
        shown["voice"] = spoken["voice"]
    if "format" in spoken:
        shown["output_audio_format"] = _format(spoken["format"])
    return shown


def _preview_item(item: Event) -> Event:
    if not isinstance(item.get("content"), list):
        return item
    parts = [
        {**part, "type": PARTS.get(str(part.get("type")), part.get("type"))} if isinstance(part, dict) else part
        for part in item["content"]
    ]
    return {**item, "content": parts}


_PREVIEW_SESSION_PATHS: Mapping[str, tuple[str, str]] = {
    "input_audio_format": ("input", "format"),
    "output_audio_format": ("output", "format"),
    "voice": ("output", "voice"),
    "speed": ("output", "speed"),
    "input_audio_transcription": ("input", "transcription"),
    "turn_detection": ("input", "turn_detection"),
    "input_audio_noise_reduction": ("input", "noise_reduction"),
}
_PREVIEW_FORMATS: Mapping[str, Event] = {
    "pcm16": {"type": "audio/pcm", "rate": 24000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}


def _session_from_preview(session: Event) -> Event:
    nested: Event = {"type": "realtime"}
    audio: dict[str, Event] = {}
    for key, value in session.items():
        if key in _PREVIEW_SESSION_PATHS:
            side, name = _PREVIEW_SESSION_PATHS[key]
            audio.setdefault(side, {})[name] = _ga_format(value) if name == "format" else value
        elif key == "modalities":
            nested["output_modalities"] = _ga_modalities(value)
        elif key == "max_response_output_tokens":
            nested["max_output_tokens"] = value
        elif key != "temperature":  # the GA API has no temperature; older clients send it always
            nested[key] = value
    if audio:
        nested["audio"] = {**nested.get("audio", {}), **audio} if isinstance(nested.get("audio", {}), dict) else audio
    return nested


def _ga_format(value: Any) -> Any:
    return _PREVIEW_FORMATS.get(value, value) if isinstance(value, str) else value


def _ga_modalities(value: Any) -> Any:
    return ["audio"] if isinstance(value, list) and "audio" in value else value


def _response_from_preview(response: Event) -> Event:
    nested: Event = {}
    spoken: Event = {}
    for key, value in response.items():
        if key == "modalities":
            nested["output_modalities"] = _ga_modalities(value)
        elif key == "output_audio_format":
            spoken["format"] = _ga_format(value)
        elif key == "voice":
            spoken["voice"] = value
        elif key != "temperature":
            nested[key] = value
    if spoken:
        nested["audio"] = {"output": spoken}
    return nested
