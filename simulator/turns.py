"""Turns of the user: the input audio buffer, voice activity, commits, idle prompts and input transcription."""
from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from typing import Any

from simulator.context import Context
from simulator.input_audio import InputAudio, Started, Stopped, Utterance
from simulator.items import Item, new_id
from simulator.responses import Response, Responses
from simulator.schema import Invalid, decoded_base64

COMMIT_MIN_MS = 100


class Turns:
    """Hears one session."""

    def __init__(self, context: Context, responses: Responses) -> None:
        self._context = context
        self._responses = responses
        self._audio = InputAudio()
        self._speaking_item_id = ""
        self._disarm_idle: Callable[[], None] | None = None
        self._shuffle = False
        responses.on_done.append(self._response_done)

    @property
    def heard_ms(self) -> int:
        """Milliseconds of audio appended in the session."""
        return self._audio.position_ms

    def append(self, encoded: str) -> int:
        """Add base64 audio and do what the detector finds in it; return the number of bytes."""
        data = decoded_base64(encoded, "audio")
        config = self._context.config
        for change in self._audio.append(data, config.input_format, config.vad):
            if isinstance(change, Started):
                self._started(change)
            else:
                self._stopped(change)
        return len(data)

    def commit(self) -> None:
        """Make a user item of what is buffered; no response follows.

        Raises:
            Invalid: If less than 100 ms are buffered.
        """
        if self._audio.buffered_ms < COMMIT_MIN_MS:
            message = (
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
                f"but buffer only has {self._audio.buffered_ms:.2f}ms of audio."
            )
            raise Invalid("input_audio_buffer_commit_empty", message)
        item_id = self._speaking_item_id if self._audio.speaking_since_ms is not None else new_id("item")
        self._committed(item_id, self._audio.take())

    def clear(self) -> None:
        """Drop what is buffered."""
        self._audio.clear()
        self._context.send("input_audio_buffer.cleared")

    def _started(self, change: Started) -> None:
        self._forget_idle()
        self._speaking_item_id = new_id("item")
        self._context.send(
            "input_audio_buffer.speech_started", audio_start_ms=change.audio_start_ms, item_id=self._speaking_item_id
        )
        detection = self._context.config.turn_detection or {}
        if detection.get("interrupt_response") and self._responses.active:
            self._responses.cancel("turn_detected")

    def _stopped(self, change: Stopped) -> None:
        item_id = self._speaking_item_id
        self._context.send("input_audio_buffer.speech_stopped", audio_end_ms=change.audio_end_ms, item_id=item_id)
        self._committed(item_id, change.utterance)
        if (self._context.config.turn_detection or {}).get("create_response"):
            self._answer()

    def _answer(self) -> None:
        """Create the response that voice activity asks for; without `interrupt_response` one may be in the way."""
        try:
            self._responses.create({})
        except Invalid as refusal:
            self._context.refuse(refusal)

    def _committed(self, item_id: str, utterance: Utterance) -> None:
        understood = None
        if utterance.speech_ms and self._context.transcripts:
            understood = self._context.transcripts.popleft()
        data: dict[str, Any] = {
            "id": item_id, "object": "realtime.item", "type": "message", "status": "completed", "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        format_type = self._context.config.input_format
        item = Item(data, bytearray(utterance.audio), format_type, utterance.speech_ms, understood)
        self._context.conversation.add(item)
        previous = self._context.conversation.previous_id(item)
        self._context.send("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous)
        for step in ("added", "done"):
            self._context.send(f"conversation.item.{step}", previous_item_id=previous, item=data)
        if self._context.config.input["transcription"]:
            self._context.spawn(self._transcribe(item, utterance.duration_ms), f"transcription {item_id}")

    async def _transcribe(self, item: Item, duration_ms: int) -> None:
        """Send the transcription events of a committed item, whatever else happens in between."""
        faults = self._context.faults
        if faults.has("transcription_never"):
            return
        late = faults.has("transcription_late")
        shuffled = faults.has("transcription_shuffled")
        if shuffled:
            self._shuffle = not self._shuffle
            late = shuffled if self._shuffle else late
        await asyncio.sleep(late.seconds if late else self._context.settings.transcription_delay_s)
        where = {"item_id": item.id, "content_index": 0}
        prefix = "conversation.item.input_audio_transcription"
        if faults.has("transcription_failed"):
            message = "Input transcription failed for item. The audio could not be transcribed."
            error = {"type": "server_error", "code": "audio_unintelligible", "message": message, "param": None}
            self._context.send(f"{prefix}.failed", **where, error=error)
            return
        transcript = item.text() if item.speech_ms else ""
        for word in re.findall(r"\S+\s*", transcript):
            self._context.send(f"{prefix}.delta", **where, delta=word)
        item.data["content"][0]["transcript"] = transcript
        usage = {"type": "duration", "seconds": math.ceil(duration_ms / 1000)}
        self._context.send(f"{prefix}.completed", **where, transcript=transcript, usage=usage)

    def _response_done(self, response: Response) -> None:
        """Start the idle timer when the response's audio should have been played."""
        detection = self._context.config.turn_detection or {}
        timeout_ms = detection.get("idle_timeout_ms")
        self._forget_idle()
        if timeout_ms and response.in_conversation and self._audio.speaking_since_ms is None:
            seconds = (timeout_ms * self._context.settings.idle_timeout_scale + response.audio_ms) / 1000
            self._disarm_idle = self._context.later(seconds, self._idle)

    def _forget_idle(self) -> None:
        if self._disarm_idle:
            self._disarm_idle()
            self._disarm_idle = None

    def _idle(self) -> None:
        """Nobody spoke for the idle timeout: commit empty audio and answer it."""
        if self._responses.active:
            return  # its end starts the timer anew
        item_id, now_ms = new_id("item"), self._audio.position_ms
        start_ms = now_ms - self._audio.buffered_ms
        self._context.send(
            "input_audio_buffer.timeout_triggered", audio_start_ms=start_ms, audio_end_ms=now_ms, item_id=item_id
        )
        self._audio.clear()
        self._committed(item_id, Utterance(b"", now_ms - start_ms, 0))
        self._answer()
