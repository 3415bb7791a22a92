"""An agent as its owner configured it, read from a row with fallbacks.

A row that holds nonsense in one column must not silence the agent: each field falls back to its default and the name of
the field is kept in `Agent.repaired`, so that the log can tell the owner.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
"""Built-in Realtime voices. Source: OpenAI Realtime reference, section 3."""

DEFAULT_VOICE = "alloy"

RETIRED_VOICES = {"fable": "ballad", "onyx": "ash", "nova": "coral"}
"""Voices of older speech models that the Realtime API refuses, and the nearest in sound that it has."""

CUSTOM_VOICE = re.compile(r"voice_[A-Za-z0-9_-]{1,64}")
"""Shape of a custom voice id. Source: OpenAI Realtime reference, section 3."""

SPEED_RANGE = (0.25, 1.5)
"""Range of `audio.output.speed`. Source: OpenAI Realtime reference, section 4."""

CLIENT_MAY = ("turn_detection", "transcription_language", "speed", "noise_reduction")
"""What a client may change of its own session unless the agent's owner says otherwise."""

CLIENT_MAY_NEVER = frozenset({"instructions", "tools", "tool_choice", "model", "max_output_tokens", "truncation"})
"""Fields that decide what the agent is and what it costs; no owner setting opens them to clients."""

BUILTIN_TOOLS = ("end_call", "transfer_call", "send_dtmf_wait", "search_knowledge", "current_time")

_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class VoiceStyle:
    """How the agent sounds; personality and accent have no parameter of their own and go into the instructions."""

    voice: str = DEFAULT_VOICE
    personality: str = ""
    accent: str = ""
    speed: float = 1.0
    language: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call: built in (`builtin` set) or an HTTP request to `url`."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    builtin: str | None = None
    url: str | None = None
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 10.0
    filler: str = ""


@dataclass(frozen=True, slots=True)
class KnowledgeSource:
    """An OpenAI vector store the agent may search."""

    vector_store_id: str
    name: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class CallSettings:
    """How a call is held; times in seconds."""

    max_duration_s: float | None = None
    silence_timeout_s: float = 10.0
    check_presence: bool = True
    presence_message: str = "Are you still there?"
    presence_delay_s: float = 3.0
    hangup_message: str = "I did not hear anything, so I will hang up. Goodbye."
    error_message: str = "I am sorry, something went wrong. Please call again later."
    end_call_phrases: tuple[str, ...] = ()
    allow_interruptions: bool = True
    transfer_numbers: tuple[str, ...] = ()
    voicemail: str = ""
    noise_reduction: str | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """A talking agent. Empty `model` and None `max_output_tokens` mean the server's defaults."""

    id: str
    user_id: str
    name: str = "Agent"
    instructions: str = ""
    greeting: str = ""
    style: VoiceStyle = field(default_factory=VoiceStyle)
    model: str = ""
    max_output_tokens: int | None = None
    turn_detection: Mapping[str, Any] | None = None
    tools: tuple[Tool, ...] = ()
    knowledge: tuple[KnowledgeSource, ...] = ()
    call_settings: CallSettings = field(default_factory=CallSettings)
    client_may: frozenset[str] = frozenset(CLIENT_MAY)
    api_key_secret_id: str | None = None
    repaired: tuple[str, ...] = ()


class _Row:
    """Reads columns with a fallback each and remembers which ones had to be repaired."""

    def __init__(self, columns: Mapping[str, Any], prefix: str = "") -> None:
        self.columns = columns
        self.prefix = prefix
        self.repaired: list[str] = []

    def get(self, name: str, default: T, read: Callable[[Any], T]) -> T:
        """Return a column as `read` understands it, or the default when it is empty or nonsense."""
        value = self.columns.get(name)
        if value is None or value == "":
            return default
        try:
            return read(value)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            self.repaired.append(self.prefix + name)
            return default


def agent_from_row(row: Mapping[str, Any]) -> Agent:
    """Return the agent a row of the table `agents` describes.

    Args:
        row: Columns by name; `jsonb` columns either decoded or as JSON text. `id` and `user_id` are required.

    Raises:
        KeyError: If `id` or `user_id` is missing.
    """
    read = _Row(row)
    settings_row = _Row(read.get("call_settings", {}, _mapping), "call_settings.")
    style = VoiceStyle(
        voice=read.get("voice", DEFAULT_VOICE, _stored_voice),
        personality=read.get("personality", "", _text),
        accent=read.get("accent", "", _text),
        speed=read.get("speed", 1.0, _speed),
        language=read.get("language", "", _language),
    )
    return Agent(
        id=str(row["id"]),
        user_id=str(row["user_id"]),
        name=read.get("name", "Agent", _text),
        instructions=read.get("instructions", "", _text),
        greeting=read.get("greeting", "", _text),
        style=style,
        model=read.get("model", "", _text),
        max_output_tokens=read.get("max_output_tokens", None, _output_tokens),
        turn_detection=read.get("turn_detection", None, _turn_detection),
        tools=_tools(read),
        knowledge=read.get("knowledge", (), _knowledge),
        call_settings=_call_settings(settings_row),
        client_may=read.get("client_may", frozenset(CLIENT_MAY), _client_may),
        api_key_secret_id=read.get("api_key_secret_id", None, _text),
        repaired=(*read.repaired, *settings_row.repaired),
    )


def valid_voice(name: str) -> str | None:
    """Return the voice to use for a requested name, or None when there is no such voice.

    A retired name gives its replacement; compare with the request to see whether that happened.
    """
    voice = name.strip()
    if CUSTOM_VOICE.fullmatch(voice):
        return voice
    voice = voice.lower()
    if voice in VOICES:
        return voice
    return RETIRED_VOICES.get(voice)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return str(value)
    return value


def _decoded(value: Any) -> Any:
    return json.loads(value, parse_constant=_no_constant) if isinstance(value, str) else value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not valid JSON")


def _word(entry: Mapping[str, Any], name: str, default: str = "") -> str:
    """Return a text of an object; a missing one and null are the default."""
    value = entry.get(name)
    return default if value is None else _text(value)


def _flag(value: Any) -> bool:
    """Return a truth value; the text `false` is no truth."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}[_text(value).lower()]


def _mapping(value: Any) -> Mapping[str, Any]:
    value = _decoded(value)
    if not isinstance(value, Mapping):
        raise TypeError("not an object")
    return value


def _list(value: Any) -> list[Any]:
    value = _decoded(value)
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _stored_voice(value: Any) -> str:
    voice = valid_voice(_text(value))
    if voice is None:
        raise ValueError("no such voice")
    return voice


def _speed(value: Any) -> float:
    speed = float(value)
    if not SPEED_RANGE[0] <= speed <= SPEED_RANGE[1]:
        raise ValueError("speed out of range")
    return speed


def _language(value: Any) -> str:
    """Return an ISO 639-1 code, optionally with a region; anything else would make the API refuse the session."""
    language = _text(value).strip()
    if not re.fullmatch(r"[a-zA-Z]{2,3}(-[a-zA-Z]{2,4})?", language):
        raise ValueError("not a language code")
    return language


def _output_tokens(value: Any) -> int:
    tokens = int(value)
    if not 1 <= tokens <= 4096:  # OpenAI Realtime reference, section 4, max_output_tokens
        raise ValueError("out of range")
    return tokens


def _turn_detection(value: Any) -> Mapping[str, Any]:
    setting = _mapping(value)
    if setting.get("type") not in {"server_vad", "semantic_vad", "none"}:
        raise ValueError("unknown turn detection")
    return setting


def _tools(row: _Row) -> tuple[Tool, ...]:
    """Return the tools that can be used: one that is nonsense, or the second of a name, takes no other with it."""
    none: list[Any] = []
    entries = row.get("tools", none, _list)
    found = [_Row({"tool": entry}).get("tool", None, lambda value: _tool(_mapping(value))) for entry in entries]
    tools = {tool.name: tool for tool in reversed(found) if tool is not None}
    if len(tools) < len(entries):
        row.repaired.append("tools")
    return tuple(tool for tool in found if tool is not None and tools.get(tool.name) is tool)


def _tool(entry: Mapping[str, Any]) -> Tool:
    builtin = entry.get("builtin")
    if builtin is not None:
        if builtin not in BUILTIN_TOOLS:
            raise ValueError("unknown built-in tool")
        return Tool(name=builtin, description=_word(entry, "description"), parameters={}, builtin=builtin)
    name, url = entry["name"], entry["url"]
    if not _TOOL_NAME.fullmatch(name) or not str(url).startswith(("https://", "http://")):
        raise ValueError("a tool needs a name and an address")
    return Tool(
        name=name,
        description=_word(entry, "description"),
        parameters=_mapping(entry.get("parameters") or {"type": "object", "properties": {}}),
        url=str(url),
        method=_word(entry, "method", "POST").upper(),
        headers={str(k): str(v) for k, v in _mapping(entry.get("headers") or {}).items()},
        timeout_s=min(max(float(_word(entry, "timeout_s", "10")), 0.5), 60.0),
        filler=_word(entry, "filler"),
    )


def _knowledge(value: Any) -> tuple[KnowledgeSource, ...]:
    return tuple(
        KnowledgeSource(str(entry["vector_store_id"]), _word(entry, "name"), _word(entry, "description"))
        for entry in map(_mapping, _list(value))
    )


def _client_may(value: Any) -> frozenset[str]:
    """Read either a list of names or an object of name to bool; what no owner may open is left out."""
    value = _decoded(value)
    if isinstance(value, Mapping):
        names = {name for name in CLIENT_MAY if value.get(name, True)} | {name for name, on in value.items() if on}
    else:
        names = {str(name) for name in _list(value)}
    return frozenset(names) - CLIENT_MAY_NEVER


def _call_settings(row: _Row) -> CallSettings:
    base = CallSettings()
    return CallSettings(
        max_duration_s=row.get("max_duration_s", base.max_duration_s, _positive),
        silence_timeout_s=row.get("silence_timeout_s", base.silence_timeout_s, _positive),
        check_presence=row.get("check_presence", base.check_presence, _flag),
        presence_message=row.get("presence_message", base.presence_message, _text),
        presence_delay_s=row.get("presence_delay_s", base.presence_delay_s, _positive),
        hangup_message=row.get("hangup_message", base.hangup_message, _text),
        error_message=row.get("error_message", base.error_message, _text),
        end_call_phrases=row.get("end_call_phrases", base.end_call_phrases, _texts),
        allow_interruptions=row.get("allow_interruptions", base.allow_interruptions, _flag),
        transfer_numbers=row.get("transfer_numbers", base.transfer_numbers, _texts),
        voicemail=row.get("voicemail", base.voicemail, _text),
        noise_reduction=row.get("noise_reduction", base.noise_reduction, _noise_reduction),
    )


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < 86_400:  # a day: longer is a unit mistake (milliseconds)
        raise ValueError("out of range")
    return number


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(entry) for entry in _list(value))


def _noise_reduction(value: Any) -> str:
    if value not in {"near_field", "far_field"}:
        raise ValueError("unknown noise reduction")
    return str(value)
