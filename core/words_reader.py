"""Recognises the written words of an answer fast: of one answer's pieces only the event's id and the text differ.

As in `delta_reader.py` a frame is compared with the head of the one before; whatever has another shape is left to JSON.
Source of the shape: OpenAI Realtime reference, section 7.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from core.delta_reader import EVENT_ID, KEYS, MAX_EVENT_ID_CHARS
from core.realtime import words_head

_END = re.compile(rb'"(?:,"obfuscation":"[0-9A-Za-z]*")?\}\Z')
"""What may follow the text; the service pads pieces so that their length does not tell what was said."""

_NONE = b"\x00"
"""No event begins like this."""


class Words(NamedTuple):
    """A piece of the transcript of an answer."""

    item_id: str
    text: str


class WordsReader:
    """Reads the pieces of transcript of one link."""

    __slots__ = ("_before", "_behind", "_item_id")

    def __init__(self) -> None:
        self._before = _NONE
        self._behind = b""
        self._item_id = ""

    def read(self, frame: bytes) -> Words | None:
        """Return a piece of transcript, or None for every other event and every unusual shape of this one."""
        before, behind = self._before, self._behind
        if not frame.startswith(before):
            return self._learn(frame)
        id_end = frame.find(b'"', len(before), len(before) + MAX_EVENT_ID_CHARS)
        if id_end == -1 or not frame.startswith(behind, id_end) or not frame[len(before) : id_end].isalnum():
            return self._learn(frame)
        text = _text(frame, id_end + len(behind))
        return None if text is None else Words(self._item_id, text)

    def _learn(self, frame: bytes) -> Words | None:
        """Read a frame of any shape, and remember its head when it may come again."""
        found = words_head(frame)
        if found is None:
            return None
        item_id, start = found
        text, event_id = _text(frame, start), EVENT_ID.search(frame, 0, start)
        if text is None or event_id is None or any(frame.count(key, 0, start) != 1 for key in KEYS):
            return None
        self._item_id = item_id
        self._before, self._behind = frame[: event_id.end(1)], frame[event_id.end() - 1 : start]
        return Words(item_id, text)


def _text(frame: bytes, start: int) -> str | None:
    """Return the text that begins here when it stands for itself: no escapes, nothing but letters and signs."""
    end = frame.find(b'"', start)
    if not _END.match(frame, end) or frame.find(b"\\", start, end) != -1:
        return None
    try:
        text = frame[start:end].decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None
