"""The conversation of a session: items in a chain, with the audio behind them."""
from __future__ import annotations

import base64
import random
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from simulator.audio import BYTES_PER_MS, PCM, duration_ms
from simulator.schema import Invalid, decoded_base64

_ALPHABET = string.ascii_letters + string.digits
ID_TAIL = 21  # length of the tails in captures: item_ + 21 characters stays under the limit of 32

# Audio is kept for `conversation.item.retrieve` and for the echo; beyond this the oldest loses its sound first.
KEPT_AUDIO_BYTES = 16 * 1024 * 1024


def new_id(prefix: str) -> str:
    """Return an id like the service's: prefix, underscore, 21 letters and digits."""
    return f"{prefix}_{''.join(random.choices(_ALPHABET, k=ID_TAIL))}"


@dataclass(eq=False)
class Item:
    """One entry of a conversation.

    Attributes:
        data: The item as clients see it, without audio bytes.
        audio: Its sound in `format_type`; empty for text.
        speech_ms: How much of a user's audio was loud.
        understood: The words the simulated model takes from the audio; None when it only knows that somebody spoke.
        truncated: Whether the client cut it; its transcript is gone then.
    """

    data: dict[str, Any]
    audio: bytearray = field(default_factory=bytearray)
    format_type: str = PCM
    speech_ms: int = 0
    understood: str | None = None
    truncated: bool = False

    @property
    def id(self) -> str:
        """The item's id."""
        return str(self.data["id"])

    @property
    def audio_ms(self) -> int:
        """Whole milliseconds of its audio."""
        return duration_ms(len(self.audio), self.format_type)

    def is_message(self, role: str) -> bool:
        """Return whether this is a message of that role."""
        return bool(self.data["type"] == "message" and self.data["role"] == role)

    def has_user_audio(self) -> bool:
        """Return whether a user said this aloud."""
        return self.is_message("user") and any(part["type"] == "input_audio" for part in self.data["content"])

    def text(self) -> str:
        """Return its words: text parts, transcripts, else how long somebody spoke."""
        if self.understood:
            return self.understood
        words = [part.get("text") or part.get("transcript") or "" for part in self.data.get("content", ())]
        joined = " ".join(word for word in words if word)
        return joined or (f"(speech, {self.speech_ms / 1000:.1f} seconds)" if self.has_user_audio() else "")

    def with_audio(self) -> dict[str, Any]:
        """Return the item as `conversation.item.retrieved` shows it, audio bytes included."""
        encoded = base64.b64encode(self.audio).decode()
        content = [
            {**part, "audio": encoded} if part["type"] in ("input_audio", "output_audio") else dict(part)
            for part in self.data.get("content", ())
        ]
        return {**self.data, "content": content} if content else dict(self.data)


def item_from_client(data: Mapping[str, Any], input_format: str) -> Item:
    """Build an item as the service keeps it: with id, object and status, audio apart.

    Raises:
        Invalid: If its audio is not base64.
    """
    made = {"id": new_id("item"), "object": "realtime.item", "status": "completed", **data}
    item = Item(made, format_type=input_format)
    if made["type"] == "function_call":
        made.setdefault("call_id", new_id("call"))
    if "content" not in made:
        return item
    made["content"] = []
    for index, part in enumerate(data["content"]):
        if part["type"] == "input_audio":
            item.audio += decoded_base64(part["audio"], f"item.content[{index}].audio")
            item.speech_ms = item.audio_ms
            made["content"].append({"type": "input_audio", "transcript": part.get("transcript")})
        else:
            made["content"].append(dict(part))
    return item


class Conversation:
    """Items in order, found by id."""

    def __init__(self) -> None:
        self.id = new_id("conv")
        self._items: list[Item] = []

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def find(self, item_id: str) -> Item | None:
        """Return the item of that id, or None."""
        return next((item for item in reversed(self._items) if item.id == item_id), None)

    def previous_id(self, item: Item) -> str | None:
        """Return the id of the item before this one; None for the first."""
        index = self._items.index(item)
        return self._items[index - 1].id if index else None

    def add(self, item: Item, after: str | None = None) -> None:
        """Put an item at the end, at the beginning (`root`) or after another.

        Raises:
            Invalid: If its id is taken, or there is no item to put it after.
        """
        if self.find(item.id):
            raise Invalid("invalid_value", f"Error adding item: an item with ID '{item.id}' already exists.", "item.id")
        if after is None:
            self._items.append(item)
        elif after == "root":
            self._items.insert(0, item)
        else:
            before = self.find(after)
            if before is None:
                message = f"Error adding item: the previous item with ID '{after}' does not exist."
                raise Invalid("invalid_value", message, "previous_item_id")
            self._items.insert(self._items.index(before) + 1, item)
        self._forget_old_audio()

    def require(self, item_id: str, verb: str) -> Item:
        """Return the item; raise the `item_{verb}_invalid_item_id` refusal when it is not there."""
        item = self.find(item_id)
        if item is None:
            code = f"item_{verb}_invalid_item_id"
            raise Invalid(code, f"Error {verb[:-1]}ing item: item with ID '{item_id}' does not exist.", "item_id")
        return item

    def delete(self, item_id: str) -> None:
        """Remove an item; raises `Invalid` when it is not there."""
        self._items.remove(self.require(item_id, "delete"))

    def truncate(self, item_id: str, audio_end_ms: int, content_index: int) -> None:
        """Cut an assistant's audio and drop its transcript, as the service does.

        Raises:
            Invalid: If there is no such item, it has no audio, or less than `audio_end_ms` of it.
        """
        item = self.require(item_id, "truncate")
        if not item.is_message("assistant") or not item.audio or audio_end_ms == 0:
            raise Invalid("unsupported_content_type", "Only model output audio messages can be truncated.", "item_id")
        if content_index:
            raise Invalid("invalid_value", "Invalid 'content_index': the item has 1 content part.", "content_index")
        if audio_end_ms > item.audio_ms:
            message = f"Audio content of {item.audio_ms}ms is already shorter than {audio_end_ms}ms"
            raise Invalid("invalid_value", message, "audio_end_ms")
        del item.audio[audio_end_ms * BYTES_PER_MS[item.format_type] :]
        item.truncated = True
        for part in item.data["content"]:
            part.pop("transcript", None)

    def _forget_old_audio(self) -> None:
        total = sum(len(item.audio) for item in self._items)
        for item in self._items:
            if total <= KEPT_AUDIO_BYTES:
                return
            total -= len(item.audio)
            item.audio = bytearray()
