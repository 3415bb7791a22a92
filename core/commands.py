"""What a conversation may ask of the world; counterpart of the facts in `session.py` and `bridge.py`.

`handlers/relay.py` performs a list of commands in order and without waiting in between. Frames are whole JSON messages
in UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from core.errors import Ending
from core.realtime import encode
from core.records import Turn

URGENT = frozenset(
    {
        "error",
        "gateway.notice",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "conversation.item.input_audio_transcription.completed",
    }
)
"""Events whose meaning does not depend on the audio before them; on a slow line they overtake it."""


@dataclass(frozen=True, slots=True)
class OpenUpstream:
    """Open a link to the Realtime API, as generation `generation`, after `delay_s` seconds.

    `refresh_key` asks for the API key anew, because the last one was refused.
    """

    generation: int
    delay_s: float = 0.0
    refresh_key: bool = False


@dataclass(frozen=True, slots=True)
class CloseUpstream:
    """Close the link of the current generation, if there is one; nothing of it is heard again."""


@dataclass(frozen=True, slots=True)
class SendUpstream:
    """Send one frame to the Realtime API."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class SendClient:
    """Send one frame to the client, in order; an urgent one overtakes what waits to be written."""

    frame: bytes
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class SendClientAudio:
    """Send one audio frame to the client, droppable when the client reads too slowly."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class DropAudio:
    """Forget audio that waits to be written to the client: the listener cut in."""


@dataclass(frozen=True, slots=True)
class SaveTurn:
    """Store one finished turn."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class SaveProgress:
    """Store how the conversation stands; `end_reason` set means it is over."""

    turn_count: int
    usage: Mapping[str, Any]
    cost_usd: float
    end_reason: str | None = None


@dataclass(frozen=True, slots=True)
class RunTool:
    """Run a tool and report `tool_finished` within its own deadline."""

    call_id: str
    name: str
    arguments: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class HangUp:
    """Have the telephone company end the call; a call that is over already is fine."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Have the telephone company go on with the call by other instructions, as TwiML; our stream ends by it."""

    twiml: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CheckToken:
    """Verify a fresh token of the same user and report `token_accepted` or `token_refused`."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Note:
    """Write one log line; the fields hold nothing personal."""

    event: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class Close:
    """End the session: an `error` event unless the end is normal, then the close frame."""

    ending: Ending
    message: str = ""


Command = (
    OpenUpstream
    | CloseUpstream
    | SendUpstream
    | SendClient
    | SendClientAudio
    | DropAudio
    | SaveTurn
    | SaveProgress
    | RunTool
    | CheckToken
    | HangUp
    | Redirect
    | Note
    | Close
)


def send(event: Mapping[str, Any]) -> SendUpstream:
    """Return the command that sends an event to the Realtime API."""
    return SendUpstream(encode(event))


def tell(event: Mapping[str, Any]) -> SendClient:
    """Return the command that sends an event to the client."""
    return SendClient(encode(event), urgent=event["type"] in URGENT)


def saved(turns: Iterable[Turn]) -> list[Command]:
    """Return the commands that store turns."""
    return [SaveTurn(turn) for turn in turns]


def optional(event: Mapping[str, Any] | None) -> list[Command]:
    """Return the command that sends an event to the Realtime API, or none."""
    return [] if event is None else [send(event)]


def shown(frame: bytes | None) -> list[Command]:
    """Return the command that sends a frame to the client, or none."""
    return [] if frame is None else [SendClient(frame)]
