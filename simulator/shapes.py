"""The client events of the Realtime API (GA), as shapes. Everything a client may send is here; the rest is refused.

Source: OpenAI's OpenAPI description and the types of its Python SDK, with the limits measured on the live service.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulator.schema import (
    Check,
    Invalid,
    any_object,
    anything,
    array_of,
    base64_audio,
    decimal,
    either,
    fields,
    flag,
    integer,
    nullable,
    one_of,
    tagged,
    text,
    wrong_type,
)

VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
TRANSCRIPTION_MODELS = (
    "gpt-transcribe", "gpt-live-transcribe", "gpt-realtime-whisper", "whisper-1", "gpt-4o-mini-transcribe",
    "gpt-4o-transcribe", "gpt-4o-transcribe-diarize",
)
MAX_APPEND_BASE64 = 15 * 1024 * 1024 * 4 // 3  # 15 MiB of audio an event
MAX_ID = 32
MAX_TOOLS = 128
MAX_OUTPUT_TOKENS = 4_096

_ID = text(longest=MAX_ID)
_STATUS = one_of("in_progress", "completed", "incomplete")
_ITEM_OPTIONAL: dict[str, Check] = {"id": _ID, "status": _STATUS, "object": one_of("realtime.item")}


def _metadata(value: Any, path: str) -> None:
    any_object(value, path)
    if len(value) > 16:
        message = f"Invalid '{path}': too many properties. Expected at most 16."
        raise Invalid("object_above_max_properties", message, path)
    for key, entry in value.items():
        text(longest=64)(key, path)
        text(longest=512)(entry, f"{path}.{key}")


def _modalities(value: Any, path: str) -> None:
    array_of(text())(value, path)
    if value not in (["audio"], ["text"]):
        message = f"Invalid modalities: {value}. Supported combinations are: ['text'] and ['audio']."
        raise Invalid("invalid_value", message, path)


def _rate(value: Any, path: str) -> None:
    integer(24_000, 24_000)(value, path)


def _max_output_tokens(value: Any, path: str) -> None:
    if isinstance(value, str):
        one_of("inf")(value, path)
    else:
        integer(1, MAX_OUTPUT_TOKENS)(value, path)


def _tool_name(value: Any, path: str) -> None:
    text(longest=64, shortest=1)(value, path)
    if not all(c.isascii() and (c.isalnum() or c in "_-") for c in value):
        message = f"Invalid '{path}': string does not match pattern. Expected a string that matches '^[a-zA-Z0-9_-]+$'."
        raise Invalid("invalid_value", message, path)


FORMAT = tagged("type", {
    "audio/pcm": fields({"type": anything, "rate": _rate}),
    "audio/pcmu": fields({"type": anything}),
    "audio/pcma": fields({"type": anything}),
})
VOICE = either({str: one_of(*VOICES), dict: fields({"id": text(shortest=1)})}, "a voice name or an object with an id")
_MCP_OPTIONAL = (
    "server_url", "connector_id", "tunnel_id", "authorization", "headers", "allowed_tools", "require_approval",
    "server_description", "defer_loading",
)
TOOLS = array_of(
    tagged("type", {
        "function": fields({"type": anything, "name": _tool_name}, {"description": text(), "parameters": any_object}),
        "mcp": fields({"type": anything, "server_label": text(shortest=1)}, dict.fromkeys(_MCP_OPTIONAL, anything)),
    }),
    longest=MAX_TOOLS,
)
TOOL_CHOICE = either({
    str: one_of("none", "auto", "required"),
    dict: tagged("type", {
        "function": fields({"type": anything, "name": text()}),
        "mcp": fields({"type": anything, "server_label": text()}, {"name": nullable(text())}),
    }),
}, "a string or an object")
REASONING = fields({}, {"effort": one_of("minimal", "low", "medium", "high", "xhigh")})
TURN_DETECTION = nullable(tagged("type", {
    "server_vad": fields({"type": anything}, {
        "threshold": decimal(0.0, 1.0), "prefix_padding_ms": integer(0), "silence_duration_ms": integer(0),
        "idle_timeout_ms": nullable(integer(5_000, 30_000)), "create_response": flag, "interrupt_response": flag,
    }),
    "semantic_vad": fields({"type": anything}, {
        "eagerness": one_of("low", "medium", "high", "auto"), "create_response": flag, "interrupt_response": flag,
    }),
}))
TRANSCRIPTION = nullable(fields({}, {
    "model": one_of(*TRANSCRIPTION_MODELS), "language": text(), "languages": array_of(text()), "prompt": text(),
    "keywords": array_of(text()), "delay": anything,
}))
NOISE_REDUCTION = nullable(fields({"type": one_of("near_field", "far_field")}, {"strength": decimal(0.0, 1.0)}))
TRUNCATION = either({
    str: one_of("auto", "disabled"),
    dict: tagged("type", {"retention_ratio": fields({"type": anything, "retention_ratio": decimal(0.0, 1.0)}, {
        "token_limits": fields({}, {"post_instructions": integer(0)})})}),
}, "a string or an object")
TRACING = nullable(either({
    str: one_of("auto"),
    dict: fields({}, {"workflow_name": text(), "group_id": text(), "metadata": any_object}),
}, "a string or an object"))

SESSION = fields({"type": one_of("realtime")}, {
    "model": text(), "instructions": text(), "output_modalities": _modalities, "max_output_tokens": _max_output_tokens,
    "tools": TOOLS, "tool_choice": TOOL_CHOICE, "parallel_tool_calls": flag, "reasoning": REASONING, "tracing": TRACING,
    "truncation": TRUNCATION, "prompt": nullable(any_object),
    "include": nullable(array_of(one_of("item.input_audio_transcription.logprobs"))),
    "audio": fields({}, {
        "input": fields({}, {
            "format": FORMAT, "transcription": TRANSCRIPTION, "turn_detection": TURN_DETECTION,
            "noise_reduction": NOISE_REDUCTION,
        }),
        "output": fields({}, {"format": FORMAT, "voice": VOICE, "speed": decimal(0.25, 1.5)}),
    }),
})

_INPUT_TEXT = fields({"type": anything, "text": text()})
_MESSAGE_ROLES: Mapping[str, Check] = {
    "system": tagged("type", {"input_text": _INPUT_TEXT}),
    "user": tagged("type", {
        "input_text": _INPUT_TEXT,
        "input_audio": fields({"type": anything, "audio": base64_audio}, {"transcript": nullable(text())}),
        "input_image": fields({"type": anything, "image_url": text()}, {"detail": one_of("auto", "low", "high")}),
    }),
    "assistant": tagged("type", {"output_text": fields({"type": anything, "text": text()})}),
}


def _message(role: str, part: Check) -> Check:
    required: dict[str, Check] = {"type": anything, "role": anything, "content": array_of(part)}
    phase: dict[str, Check] = {"phase": one_of("commentary", "final_answer")} if role == "assistant" else {}
    return fields(required, {**_ITEM_OPTIONAL, **phase})


ITEM_TYPES: Mapping[str, Check] = {
    "message": tagged("role", {role: _message(role, part) for role, part in _MESSAGE_ROLES.items()}),
    "function_call": fields(
        {"type": anything, "name": text(), "arguments": text()}, {**_ITEM_OPTIONAL, "call_id": _ID}),
    "function_call_output": fields({"type": anything, "call_id": _ID, "output": text()}, _ITEM_OPTIONAL),
    "mcp_approval_response": fields(
        {"type": anything, "id": _ID, "approval_request_id": text(), "approve": flag}, {"reason": nullable(text())}),
}
ITEM = tagged("type", ITEM_TYPES)
INPUT_ITEM = tagged("type", {**ITEM_TYPES, "item_reference": fields({"type": anything, "id": _ID})})

RESPONSE = fields({}, {
    "instructions": text(), "output_modalities": _modalities, "tools": TOOLS, "tool_choice": TOOL_CHOICE,
    "parallel_tool_calls": flag, "reasoning": REASONING, "max_output_tokens": _max_output_tokens,
    "conversation": one_of("auto", "none"), "input": array_of(INPUT_ITEM), "metadata": nullable(_metadata),
    "prompt": nullable(any_object),
    "audio": fields({}, {"output": fields({}, {"format": FORMAT, "voice": VOICE})}),
})


def _audio(value: Any, path: str) -> None:
    if not isinstance(value, str):
        raise wrong_type(value, path, "a base64-encoded string")
    text(longest=MAX_APPEND_BASE64)(value, path)


def _event(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    return fields({"type": anything, **required}, {"event_id": text(longest=512), **(optional or {})})


CLIENT_EVENTS: Mapping[str, Check] = {
    "session.update": _event({"session": SESSION}),
    "input_audio_buffer.append": _event({"audio": _audio}),
    "input_audio_buffer.commit": _event({}),
    "input_audio_buffer.clear": _event({}),
    "conversation.item.create": _event({"item": ITEM}, {"previous_item_id": nullable(text())}),
    "conversation.item.retrieve": _event({"item_id": text()}),
    "conversation.item.truncate": _event({"item_id": text(), "content_index": integer(0), "audio_end_ms": integer(0)}),
    "conversation.item.delete": _event({"item_id": text()}),
    "response.create": _event({}, {"response": RESPONSE}),
    "response.cancel": _event({}, {"response_id": text()}),
}


def check_client_event(event: Mapping[str, Any]) -> None:
    """Return when the event is one a client may send.

    Raises:
        Invalid: With the code, message and `param` path the service would answer.
    """
    tagged("type", CLIENT_EVENTS)(event, "")
