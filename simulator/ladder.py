"""The events of one response's outputs, in the order of the Realtime API.

added: `response.output_item.added`, `conversation.item.added`, `response.content_part.added`, deltas;
done: `response.output_audio.done`, `….output_audio_transcript.done`, `response.content_part.done`,
`response.output_item.done`, `conversation.item.done`. A cancelled output is closed in the same order, as incomplete.
"""
from __future__ import annotations

import base64
from typing import Any

from simulator.audio import duration_ms
from simulator.context import Context
from simulator.items import Conversation, Item, new_id
from simulator.usage import audio_tokens, text_tokens


class Ladder:
    """Climbs for one response; at most one output is open."""

    def __init__(self, context: Context, response_id: str, conversation: Conversation | None) -> None:
        self.outputs: list[Item] = []
        self.text_tokens = 0
        self.audio_bytes = 0
        self.audio_format = ""
        self._context = context
        self._response_id = response_id
        self._conversation = conversation
        self._open: Item | None = None
        self._spoken = ""
        self._audible = False

    @property
    def audio_ms(self) -> int:
        """Milliseconds of audio sent so far, over all outputs."""
        return duration_ms(self.audio_bytes, self.audio_format) if self.audio_format else 0

    @property
    def tokens(self) -> int:
        """Output tokens so far."""
        return self.text_tokens + text_tokens(self._spoken) + audio_tokens(self.audio_ms)

    def open_message(self, *, audio_format: str | None, phase: str | None = None) -> None:
        """Add an assistant message, spoken in this format, or written when it is None."""
        data: dict[str, Any] = {
            "id": new_id("item"), "object": "realtime.item", "type": "message", "status": "in_progress",
            "role": "assistant", "content": [],
        }
        if phase:
            data["phase"] = phase
        self._audible = audio_format is not None
        self.audio_format = audio_format or self.audio_format
        self._add(Item(data, format_type=audio_format or "audio/pcm"))
        self._send("response.content_part.added", content_index=0, part=self._part(""))

    def add_text(self, delta: str) -> None:
        """Send some words: of the transcript when it is spoken."""
        self._spoken += delta
        kind = "output_audio_transcript" if self._audible else "output_text"
        self._send(f"response.{kind}.delta", content_index=0, delta=delta)

    def add_audio(self, audio: bytes) -> None:
        """Send some sound, in the message's format."""
        if self._open is None:
            return
        self._open.audio += audio
        self.audio_bytes += len(audio)
        self._context.config.voice_locked = True
        self._send("response.output_audio.delta", content_index=0, delta=base64.b64encode(audio).decode())

    def open_call(self, name: str) -> None:
        """Add a function call without arguments."""
        self._add(Item({
            "id": new_id("item"), "object": "realtime.item", "type": "function_call", "status": "in_progress",
            "name": name, "call_id": new_id("call"), "arguments": "",
        }))

    def add_arguments(self, delta: str) -> None:
        """Send some characters of the arguments."""
        self._spoken += delta
        self._send("response.function_call_arguments.delta", delta=delta, **self._call_id())

    def close(self, status: str) -> None:
        """Finish the open output, if any, as `completed` or `incomplete`."""
        item = self._open
        if item is None:
            return
        item.data["status"] = status
        if item.data["type"] == "function_call":
            item.data["arguments"] = self._spoken
            done = {"arguments": self._spoken, "name": item.data["name"], **self._call_id()}
            self._send("response.function_call_arguments.done", **done)
        else:
            self._close_part(item)
        self.text_tokens += text_tokens(self._spoken)
        self._spoken = ""
        self._send_item("response.output_item.done", item)
        self._announce("conversation.item.done", item)
        self._open = None

    def _close_part(self, item: Item) -> None:
        if self._audible:
            transcript = {} if item.truncated else {"transcript": self._spoken}
            item.data["content"] = [{"type": "output_audio", **transcript}]
            self._send("response.output_audio.done", content_index=0)
            self._send("response.output_audio_transcript.done", content_index=0, transcript=self._spoken)
        else:
            item.data["content"] = [{"type": "output_text", "text": self._spoken}]
            self._send("response.output_text.done", content_index=0, text=self._spoken)
        self._send("response.content_part.done", content_index=0, part=self._part(self._spoken))

    def _part(self, words: str) -> dict[str, Any]:
        return {"type": "audio", "transcript": words} if self._audible else {"type": "text", "text": words}

    def _call_id(self) -> dict[str, Any]:
        return {"call_id": self._open.data["call_id"]} if self._open else {}

    def _add(self, item: Item) -> None:
        self._open = item
        self._spoken = ""
        self.outputs.append(item)
        if self._conversation:
            self._conversation.add(item)
        self._send_item("response.output_item.added", item)
        self._announce("conversation.item.added", item)

    def _announce(self, event_type: str, item: Item) -> None:
        """Tell about the item in the conversation; it may have been deleted by the client while it was spoken."""
        if self._conversation and self._conversation.find(item.id):
            previous = self._conversation.previous_id(item)
            self._context.send(event_type, previous_item_id=previous, item=item.data)

    def _send_item(self, event_type: str, item: Item) -> None:
        index = self.outputs.index(item)
        self._context.send(event_type, response_id=self._response_id, output_index=index, item=item.data)

    def _send(self, event_type: str, **fields: Any) -> None:
        if self._open:
            where = {"response_id": self._response_id, "item_id": self._open.id, "output_index": len(self.outputs) - 1}
            self._context.send(event_type, **where, **fields)
