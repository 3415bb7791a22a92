"""Which client events pass, and with which fields.

A client can never change instructions, tools, model or cost limits (contract, section 3). Everything that is not named
here is refused; an event is refused as a whole, as the Realtime API does itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from core.agent import SPEED_RANGE, valid_voice
from core.realtime import BadEvent, Event, is_base64

MAX_TEXT_CHARS = 32_768
"""Longest typed message, about 8,000 tokens: a quarter of the smallest model's context (reference, section 3)."""

MAX_ITEM_ID_CHARS = 32
"""Source: OpenAI Realtime reference, section 9.4."""

OWN_EVENT_ID = "gw_"
"""Prefix of event and item ids this server makes; clients may not use it, or they could hide errors of their own."""

_SESSION_PATHS = {
    ("audio", "input", "turn_detection"): "turn_detection",
    ("audio", "input", "noise_reduction"): "noise_reduction",
    ("audio", "input", "transcription", "language"): "transcription_language",
    ("audio", "output", "speed"): "speed",
    ("audio", "output", "voice"): "voice",
}
"""Session fields a client may change, and the name under which the agent's owner opens or closes each."""

_PCM: Event = {"type": "audio/pcm", "rate": 24000}

_NO_CHANGE: Mapping[tuple[str, ...], tuple[Any, ...]] = {
    ("type",): ("realtime",),
    ("output_modalities",): (["audio"],),
    ("audio", "input", "format"): (_PCM, {"type": "audio/pcm"}),
    ("audio", "output", "format"): (_PCM, {"type": "audio/pcm"}),
}
"""Fields that say what is so anyway: clients of both dialects send them always, so they pass and are left out."""

_VAD_FIELDS: Mapping[str, tuple[type, ...]] = {
    "type": (str,),
    "threshold": (int, float),
    "prefix_padding_ms": (int,),
    "silence_duration_ms": (int,),
    "idle_timeout_ms": (int, type(None)),
    "create_response": (bool,),
    "interrupt_response": (bool,),
    "eagerness": (str,),
}


def check(event: Event, client_may: frozenset[str]) -> Event:
    """Return what may be sent upstream for a client event in upstream's names.

    Args:
        event: A strictly read event, see `core.realtime.read_client`.
        client_may: What the agent's owner leaves to clients.

    Raises:
        BadEvent: If the event, or one field of it, is not the client's to send.
    """
    kind = event["type"]
    rule = _RULES.get(kind)
    if rule is None:
        raise BadEvent("unsupported_event", f"{_shown(kind)} is not an event a client may send here.", "type")
    event_id = event.get("event_id")
    if isinstance(event_id, str) and event_id.startswith(OWN_EVENT_ID):
        raise BadEvent("invalid_value", f"event_id must not begin with {OWN_EVENT_ID}", "event_id")
    passed = rule(event, client_may)
    return {**passed, "event_id": event_id} if event_id else passed


def _shown(text: str) -> str:
    """Return a client's word for use in an answer: short and printable."""
    return "".join(char for char in text[:64] if char.isprintable()) or "This"


def _only(event: Event, *names: str) -> None:
    for name in event:
        if name not in {"type", "event_id", *names}:
            raise BadEvent("unknown_parameter", f"Unknown field {_shown(name)}.", _shown(name))


def _append(event: Event, _may: frozenset[str]) -> Event:
    _only(event, "audio")
    audio = event.get("audio")
    if not isinstance(audio, str) or not audio:
        raise BadEvent("invalid_value", "audio must be base64 text of PCM16 audio, 24 kHz, mono.", "audio")
    if not is_base64(audio.encode("utf-8", "replace")):
        raise BadEvent("invalid_value", "audio is not valid base64.", "audio")
    return {"type": event["type"], "audio": audio}


def _bare(event: Event, _may: frozenset[str]) -> Event:
    _only(event)
    return {"type": event["type"]}


def _response_create(event: Event, _may: frozenset[str]) -> Event:
    """Let a client ask for a response, and choose text or audio; everything else would change what the agent is."""
    _only(event, "response")
    response = event.get("response")
    if response is None or response == {}:
        return {"type": event["type"]}
    if not isinstance(response, dict):
        raise BadEvent("invalid_value", "response must be an object.", "response")
    if response.get("audio") == {"output": {"format": _PCM}}:
        response = {name: value for name, value in response.items() if name != "audio"}
    for name in response:
        if name not in {"output_modalities", "metadata"}:
            raise BadEvent(
                "not_allowed",
                f"A client may not set response.{_shown(name)} of this agent.",
                f"response.{_shown(name)}",
            )
    if not _is_metadata(response.get("metadata", {})):
        raise BadEvent(
            "invalid_value",
            "metadata must be an object of at most 16 texts of at most 512 characters.",
            "response.metadata",
        )
    if response.get("output_modalities", ["audio"]) not in (["audio"], ["text"]):
        raise BadEvent(
            "invalid_value", 'output_modalities must be ["audio"] or ["text"].', "response.output_modalities"
        )
    return {"type": event["type"], "response": response}


def _is_metadata(value: Any) -> bool:
    """True for what the API takes as metadata, null included (OpenAI Realtime reference, section 5)."""
    if value is None:
        return True
    if not isinstance(value, dict) or len(value) > 16:
        return False
    return all(len(key) <= 64 and isinstance(text, str) and len(text) <= 512 for key, text in value.items())


def _response_cancel(event: Event, _may: frozenset[str]) -> Event:
    _only(event, "response_id")
    passed: Event = {"type": event["type"]}
    if event.get("response_id") is not None:
        passed["response_id"] = _id(event["response_id"], "response_id")
    return passed


def _id(value: Any, name: str, limit: int = 64) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= limit or value.startswith(OWN_EVENT_ID):
        raise BadEvent("invalid_value", f"{name} must be a text of 1 to {limit} characters.", name)
    return value


def _item_create(event: Event, _may: frozenset[str]) -> Event:
    """Let a client add what the user typed, at the end of the conversation."""
    _only(event, "item", "previous_item_id")
    item = event.get("item")
    if event.get("previous_item_id") is not None:
        raise BadEvent("not_allowed", "A client may only add items at the end.", "previous_item_id")
    if not isinstance(item, dict) or item.get("type", "message") != "message" or item.get("role", "user") != "user":
        raise BadEvent("not_allowed", "A client may only add messages of the user.", "item")
    for name in item:
        if name not in {"type", "role", "content", "id", "status", "object"}:
            raise BadEvent("unknown_parameter", f"Unknown field item.{_shown(name)}.", f"item.{_shown(name)}")
    content = item.get("content")
    if not isinstance(content, list) or not 1 <= len(content) <= 16:
        raise BadEvent("invalid_value", "item.content must be a list of 1 to 16 parts.", "item.content")
    passed: Event = {"type": "message", "role": "user", "content": [_text_part(part) for part in content]}
    if item.get("id") is not None:
        passed["id"] = _id(item["id"], "item.id", MAX_ITEM_ID_CHARS)
    return {"type": event["type"], "item": passed}


def _text_part(part: Any) -> Event:
    if not isinstance(part, dict) or part.get("type") != "input_text" or set(part) - {"type", "text"}:
        raise BadEvent("not_allowed", "A client may only add parts of the type input_text.", "item.content")
    text = part.get("text")
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_TEXT_CHARS:
        raise BadEvent("invalid_value", f"text must have 1 to {MAX_TEXT_CHARS} characters.", "item.content.text")
    if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise BadEvent("invalid_value", "text holds a NUL or half of a surrogate pair.", "item.content.text")
    return {"type": "input_text", "text": text}


def _truncate(event: Event, _may: frozenset[str]) -> Event:
    _only(event, "item_id", "content_index", "audio_end_ms")
    end = event.get("audio_end_ms")
    if isinstance(end, bool) or not isinstance(end, int) or not 0 <= end <= 3_600_000:  # an hour, the longest session
        raise BadEvent("invalid_value", "audio_end_ms must be a whole number of milliseconds.", "audio_end_ms")
    if event.get("content_index", 0) != 0 or isinstance(event.get("content_index"), bool):
        raise BadEvent("invalid_value", "content_index must be 0.", "content_index")
    return {
        "type": event["type"],
        "item_id": _id(event.get("item_id"), "item_id"),
        "content_index": 0,
        "audio_end_ms": end,
    }


def _session_update(event: Event, client_may: frozenset[str]) -> Event:
    _only(event, "session")
    session = event.get("session")
    if not isinstance(session, dict):
        raise BadEvent("invalid_value", "session must be an object.", "session")
    passed: Event = {}
    for path, value in _leaves(session):
        allowed_as = _SESSION_PATHS.get(path)
        if value in _NO_CHANGE.get(path, ()):
            continue
        name = ".".join(("session", *path))
        if allowed_as is None or allowed_as not in client_may:
            raise BadEvent("not_allowed", f"A client may not set {_shown(name)} of this agent.", _shown(name))
        _put(passed, path, _SESSION_VALUES[allowed_as](value, name))
    return {"type": event["type"], "session": {"type": "realtime", **passed}}


def _leaves(session: Event, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Return the session's fields by path, whole objects where the policy names them as one."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for key, value in session.items():
        here = (*path, key)
        if isinstance(value, dict) and here not in _SESSION_PATHS and here not in _NO_CHANGE and len(here) < 4:
            found += _leaves(value, here)
        else:
            found.append((here, value))
    return found


def _put(target: Event, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        target = target.setdefault(key, {})
    target[path[-1]] = value


def _turn_detection(value: Any, name: str) -> Any:
    if value is None:
        return None
    if not isinstance(value, dict) or value.get("type") not in ("server_vad", "semantic_vad"):
        raise BadEvent("invalid_value", f"{name} must be null or of the type server_vad or semantic_vad.", name)
    for key, setting in value.items():
        kinds = _VAD_FIELDS.get(key)
        if kinds is None or not isinstance(setting, kinds) or (isinstance(setting, bool) and bool not in kinds):
            raise BadEvent("invalid_value", f"{name}.{_shown(key)} is unknown or of the wrong type.", name)
    return value


def _noise_reduction(value: Any, name: str) -> Any:
    if value is None or value in ({"type": "near_field"}, {"type": "far_field"}):
        return value
    raise BadEvent("invalid_value", f"{name} must be null or of the type near_field or far_field.", name)


def _language(value: Any, name: str) -> str:
    if not isinstance(value, str) or not 2 <= len(value) <= 8 or not value.replace("-", "").isalpha():
        raise BadEvent("invalid_value", f"{name} must be a language code such as en.", name)
    return value


def _speed(value: Any, name: str) -> float:
    low, high = SPEED_RANGE
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadEvent("invalid_value", f"{name} must be a number from {low} to {high}.", name)
    return value


def _voice(value: Any, name: str) -> Any:
    voice = valid_voice(value) if isinstance(value, str) else None
    if voice is None:
        raise BadEvent("invalid_value", f"{name} must be one of the voices offered.", name)
    return voice


_SESSION_VALUES: Mapping[str, Callable[[Any, str], Any]] = {
    "turn_detection": _turn_detection,
    "noise_reduction": _noise_reduction,
    "transcription_language": _language,
    "speed": _speed,
    "voice": _voice,
}

_RULES: Mapping[str, Callable[[Event, frozenset[str]], Event]] = {
    "input_audio_buffer.append": _append,
    "input_audio_buffer.commit": _bare,
    "input_audio_buffer.clear": _bare,
    "response.create": _response_create,
    "response.cancel": _response_cancel,
    "conversation.item.create": _item_create,
    "conversation.item.truncate": _truncate,
    "session.update": _session_update,
}

CLIENT_EVENTS = tuple(_RULES)
"""Every Realtime event a client may send, for the documentation."""
