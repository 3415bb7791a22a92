"""The configuration of one session: defaults, the deep merge of `session.update`, and what may not change."""
from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from simulator.items import new_id
from simulator.schema import Invalid
from simulator.vad import VadSettings, vad_settings

DEFAULT_INSTRUCTIONS = (
    "You are a helpful, friendly assistant. Speak naturally, keep answers short, use the language of the user."
)
PCM_FORMAT = {"type": "audio/pcm", "rate": 24_000}
# 200 ms of silence is what the service shows in `session.created`, although its reference says 500.
SERVER_VAD = {
    "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 200,
    "idle_timeout_ms": None, "create_response": True, "interrupt_response": True,
}
SEMANTIC_VAD = {"type": "semantic_vad", "eagerness": "auto", "create_response": True, "interrupt_response": True}
_VAD_DEFAULTS: Mapping[str, Mapping[str, Any]] = {"server_vad": SERVER_VAD, "semantic_vad": SEMANTIC_VAD}

# Objects merged field by field; every other value is replaced as a whole.
_MERGED = ("audio", "input", "output", "transcription", "reasoning")


def reasons(model: str) -> bool:
    """Return whether a model of that name takes `reasoning` and speaks in phases (the 2.x family)."""
    return model.startswith("gpt-realtime-2") and not model.startswith("gpt-realtime-2025")


class SessionConfig:
    """What `session.created` and `session.updated` show."""

    def __init__(self, model: str, *, expires_at: int) -> None:
        self.voice_locked = False
        self.model = model
        self._data: dict[str, Any] = {
            "type": "realtime",
            "object": "realtime.session",
            "id": new_id("sess"),
            "model": model,
            "output_modalities": ["audio"],
            "instructions": DEFAULT_INSTRUCTIONS,
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "expires_at": expires_at,
            "audio": {
                "input": {
                    "format": dict(PCM_FORMAT),
                    "transcription": None,
                    "noise_reduction": None,
                    "turn_detection": dict(SERVER_VAD),
                },
                "output": {"format": dict(PCM_FORMAT), "voice": "alloy", "speed": 1.0},
            },
            "include": None,
        }

    def shown(self) -> dict[str, Any]:
        """Return a copy of the whole session object."""
        return deepcopy(self._data)

    def __getitem__(self, name: str) -> Any:
        return self._data[name]

    @property
    def input(self) -> Mapping[str, Any]:
        """`audio.input`."""
        return dict(self._data["audio"]["input"])

    @property
    def output(self) -> Mapping[str, Any]:
        """`audio.output`."""
        return dict(self._data["audio"]["output"])

    @property
    def input_format(self) -> str:
        """Type of the input format, such as `audio/pcm`."""
        return str(self._data["audio"]["input"]["format"]["type"])

    @property
    def turn_detection(self) -> Mapping[str, Any] | None:
        """`audio.input.turn_detection`; None when the client ends turns."""
        value: Mapping[str, Any] | None = self._data["audio"]["input"]["turn_detection"]
        return value

    @property
    def vad(self) -> VadSettings | None:
        """What opens and closes a turn, or None."""
        return vad_settings(self.turn_detection) if self.turn_detection else None

    def update(self, changes: Mapping[str, Any]) -> None:
        """Merge the `session` of a checked `session.update`, wholly or not at all.

        Raises:
            Invalid: If it changes what is fixed by now.
        """
        self._check_fixed(changes)
        self._data = _merged(self._data, changes)

    def _check_fixed(self, changes: Mapping[str, Any]) -> None:
        if changes.get("model", self.model) != self.model:
            raise Invalid("invalid_value", "Cannot update a conversation's model.", "session.model")
        if "reasoning" in changes and not reasons(self.model):
            message = f"Reasoning is not supported with model '{self.model}'."
            raise Invalid("unsupported_parameter", message, "session.reasoning")
        voice = changes.get("audio", {}).get("output", {}).get("voice", self.output["voice"])
        if self.voice_locked and voice != self.output["voice"]:
            message = "Cannot update a conversation's voice if assistant audio is present."
            raise Invalid("cannot_update_voice", message, "session.audio.output.voice")
        tracing = self._data["tracing"]
        if tracing is not None and changes.get("tracing", tracing) != tracing:
            raise Invalid("invalid_value", "Tracing cannot be changed once it is enabled.", "session.tracing")
        transcription = changes.get("audio", {}).get("input", {}).get("transcription") or {}
        if transcription.get("model") == "gpt-realtime-whisper" and transcription.get("prompt"):
            message = "Prompt is not supported with model 'gpt-realtime-whisper'."
            raise Invalid("unsupported_parameter", message, "session.audio.input.transcription.prompt")


def _merged(old: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(old)
    for name, value in changes.items():
        before = old.get(name)
        if name == "turn_detection" and value is not None:
            same = isinstance(before, dict) and before["type"] == value["type"]
            result[name] = {**(before if same and before else _VAD_DEFAULTS[value["type"]]), **value}
        elif name == "transcription" and value is not None:
            result[name] = {"model": "gpt-transcribe", **(before or {}), **value}
        elif name in _MERGED and isinstance(before, dict) and isinstance(value, dict):
            result[name] = _merged(before, value)
        else:
            result[name] = deepcopy(value)
    return result
