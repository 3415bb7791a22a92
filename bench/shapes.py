"""The messages of the load: what browsers, Twilio and the Realtime API send, byte for byte in their shape.

Audio carries the time it was sent at its beginning: eight bytes of the monotonic clock, which all processes of a
machine share, and one to fill up the base64. Nothing on the way looks into audio, so whoever receives it knows how long
it took. Shapes: OpenAI Realtime reference, sections 4 to 8; Twilio, "Media Streams - WebSocket messages".
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
import time
from dataclasses import dataclass
from typing import Any, Literal

Channel = Literal["browser", "phone"]

CHANNELS: tuple[Channel, ...] = ("browser", "phone")

STAMP_CHARS = 12
"""Nine bytes in base64."""

BYTES_PER_MS = {"browser": 48, "phone": 8}
"""PCM16 at 24 kHz, mu-law at 8 kHz. Source: OpenAI Realtime reference, section 4."""

DELTA_MS = 20
"""Audio in one message to the listener; at 50 messages a second a voice that never pauses."""

APPEND_MS = {"browser": 40, "phone": 20}
"""Audio in one message from the speaker: our browser client's chunk; Twilio's frame."""

APPEND_HEAD = b'{"type":"input_audio_buffer.append","audio":"'
APPEND_TAIL = b'"}'

TURN_S = 8.0
"""From one turn of the agent to the next: the length of two spoken sentences."""

WORD_S = 0.4
"""From one piece of the written answer to the next: people are spoken to at 150 words a minute."""


def stamp() -> bytes:
    """Return the time as it is written at the beginning of audio."""
    return binascii.b2a_base64(struct.pack("<Qx", time.monotonic_ns()), newline=False)


def age_ns(message: bytes, at: int) -> int:
    """Return how long ago audio was sent whose base64 begins at this place."""
    (sent,) = struct.unpack("<Qx", binascii.a2b_base64(message[at : at + STAMP_CHARS]))
    return int(time.monotonic_ns() - sent)


def audio_rest(channel: Channel, milliseconds: int) -> bytes:
    """Return the base64 of quiet audio of this length, less the place of the stamp; it looks like noise."""
    size = BYTES_PER_MS[channel] * milliseconds
    quiet = bytes((index * 7919) % 5 if channel == "browser" else 0xF8 + index % 8 for index in range(size))
    return base64.b64encode(quiet)[STAMP_CHARS:]


def base64_bytes(chars: int) -> int:
    """Return the bytes that so many characters of base64 hold, but for the padding."""
    return chars * 3 // 4


@dataclass(frozen=True, slots=True)
class Delta:
    """The frame of `response.output_audio.delta` around its audio."""

    head: bytes
    tail: bytes = b'"}'

    @classmethod
    def of(cls, response_id: str, item_id: str, event_id: str) -> Delta:
        """Return the frame as OpenAI writes it."""
        head = (
            f'{{"type":"response.output_audio.delta","event_id":"{event_id}","response_id":"{response_id}",'
            f'"item_id":"{item_id}","output_index":0,"content_index":0,"delta":"'
        )
        return cls(head.encode())


DELTA_MARK = b'"delta":"'
PAYLOAD_MARK = b'"payload":"'


def session_event(kind: str, session_id: str, session: dict[str, Any] | None = None) -> bytes:
    """Return `session.created` or `session.updated`."""
    shown = {"id": session_id, "object": "realtime.session", "expires_at": int(time.time()) + 3600}
    return _event(kind, "event_" + session_id, session={**shown, **(session or {"type": "realtime"})})


def update_for(channel: Channel) -> bytes:
    """Return the `session.update` of a client that has no server before it to send one."""
    kind = "audio/pcm" if channel == "browser" else "audio/pcmu"
    session = {"type": "realtime", "audio": {"output": {"format": {"type": kind}}}}
    return json.dumps({"type": "session.update", "session": session}, separators=(",", ":")).encode()


def turn_begins(session_id: str, turn: int, previous: str | None) -> list[bytes]:
    """Return the events between the end of a person's speech and the first sound of the answer.

    The person's speech and its transcript come with it, so that a conversation has two turns for each answer.
    """
    user, item, response, tag = (f"{kind}_{session_id}{turn:06d}" for kind in ("user", "item", "resp", "event"))
    said = {"id": user, "object": "realtime.item", "type": "message", "status": "completed", "role": "user",
            "content": [{"type": "input_audio", "transcript": None}]}  # fmt: skip
    answer = {"id": item, "object": "realtime.item", "type": "message", "status": "in_progress", "role": "assistant",
              "content": []}  # fmt: skip
    shown: dict[str, Any] = {"object": "realtime.response", "id": response, "status": "in_progress", "output": []}
    shown["usage"] = None
    place = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
    return [
        _event("input_audio_buffer.speech_started", tag, item_id=user, audio_start_ms=turn * 8000),
        _event("input_audio_buffer.speech_stopped", tag, item_id=user, audio_end_ms=turn * 8000 + 900),
        _event("input_audio_buffer.committed", tag, item_id=user, previous_item_id=previous),
        _event("conversation.item.added", tag, item=said, previous_item_id=previous),
        _event("conversation.item.done", tag, item=said, previous_item_id=previous),
        _event("response.created", tag, response=shown),
        _event("conversation.item.input_audio_transcription.completed", tag, item_id=user, content_index=0,
               transcript="When are you open on Saturday?", usage={"type": "duration", "seconds": 1}),
        _event("response.output_item.added", tag, response_id=response, output_index=0, item=answer),
        _event("conversation.item.added", tag, item=answer, previous_item_id=user),
        _event("response.content_part.added", tag, **place, part={"type": "output_audio", "transcript": ""}),
    ]  # fmt: skip


def word(session_id: str, turn: int) -> bytes:
    """Return one `response.output_audio_transcript.delta`."""
    response, item, tag = (f"{kind}_{session_id}{turn:06d}" for kind in ("resp", "item", "event"))
    place = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
    return _event("response.output_audio_transcript.delta", tag, **place, delta=" open")


def turn_ends(session_id: str, turn: int) -> list[bytes]:
    """Return the events after the last sound of an answer, with its usage."""
    user, item, response, tag = (f"{kind}_{session_id}{turn:06d}" for kind in ("user", "item", "resp", "event"))
    text = "open " * 20
    part = {"type": "output_audio", "transcript": text}
    answer = {"id": item, "object": "realtime.item", "type": "message", "status": "completed", "role": "assistant",
              "content": [part]}  # fmt: skip
    place = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
    usage = {
        "total_tokens": 400, "input_tokens": 240, "output_tokens": 160,
        "input_token_details": {"text_tokens": 140, "audio_tokens": 100, "cached_tokens": 0},
        "output_token_details": {"text_tokens": 40, "audio_tokens": 120},
    }  # fmt: skip
    shown = {"object": "realtime.response", "id": response, "status": "completed", "status_details": None,
             "output": [answer], "usage": usage}  # fmt: skip
    return [
        _event("response.output_audio.done", tag, **place),
        _event("response.output_audio_transcript.done", tag, **place, transcript=text),
        _event("response.content_part.done", tag, **place, part=part),
        _event("conversation.item.done", tag, item=answer, previous_item_id=user),
        _event("response.output_item.done", tag, response_id=response, output_index=0, item=answer),
        _event("response.done", tag, response=shown),
    ]


def _event(kind: str, event_id: str, **fields: Any) -> bytes:
    return json.dumps({"type": kind, "event_id": event_id, **fields}, separators=(",", ":")).encode()


def connected_message() -> bytes:
    """Return Twilio's `connected`."""
    return b'{"event":"connected","protocol":"Call","version":"1.0.0"}'


def start_message(stream_sid: str, call_sid: str, account_sid: str, token: str) -> bytes:
    """Return Twilio's `start` with the one-time token of the call."""
    start = {
        "accountSid": account_sid, "streamSid": stream_sid, "callSid": call_sid, "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": token},
    }  # fmt: skip
    message = {"event": "start", "sequenceNumber": "1", "start": start, "streamSid": stream_sid}
    return json.dumps(message, separators=(",", ":")).encode()


def stop_message(stream_sid: str, call_sid: str, account_sid: str) -> bytes:
    """Return Twilio's `stop`."""
    message = {"event": "stop", "sequenceNumber": "9", "streamSid": stream_sid,
               "stop": {"accountSid": account_sid, "callSid": call_sid}}  # fmt: skip
    return json.dumps(message, separators=(",", ":")).encode()


def media_message(stream_sid: str, number: int, rest: bytes) -> bytes:
    """Return Twilio's `media` number so much, 20 ms of audio, stamped."""
    head = (
        f'{{"event":"media","sequenceNumber":"{number + 1}","media":{{"track":"inbound","chunk":"{number}",'
        f'"timestamp":"{number * 20}","payload":"'
    )
    return b'%b%b%b"},"streamSid":"%b"}' % (head.encode(), stamp(), rest, stream_sid.encode())


def mark_returned(stream_sid: str, number: int, name: bytes) -> bytes:
    """Return Twilio's `mark`: what was sent before it has been played."""
    return b'{"event":"mark","sequenceNumber":"%d","streamSid":"%b","mark":{"name":"%b"}}' % (
        number, stream_sid.encode(), name,
    )  # fmt: skip
