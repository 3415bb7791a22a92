"""Recognises audio deltas fast: within one answer they differ in their event id and their audio only.

The first delta of an answer is read by `core.realtime.audio_delta`; what stood before and behind its event id must then
stand in the next one too, byte for byte, so that nothing can hide there.
"""

from __future__ import annotations

import re

from core.realtime import AudioDelta, audio_delta

EVENT_ID = re.compile(rb'"event_id": ?"([\w.\-]*?)[0-9A-Za-z]+"')
KEYS = (b'"type"', b'"event_id"', b'"response_id"', b'"item_id"', b'"output_index"', b'"content_index"')

MAX_EVENT_ID_CHARS = 64
"""As `core.realtime.audio_delta` takes it."""

_EQUALS = 0x3D

_NONE = b"\x00"
"""No event begins like this."""


class DeltaReader:
    """Reads the audio deltas of one link."""

    __slots__ = ("_before", "_behind", "_id_end", "_last")

    def __init__(self) -> None:
        self._before = _NONE
        self._behind = b""
        self._id_end = 0
        self._last = AudioDelta("", "", 0, 0)

    def read(self, frame: bytes) -> AudioDelta | None:
        """Return what an audio delta's head says, or None for every other event and every unusual shape of this one."""
        before, behind, id_end = self._before, self._behind, self._id_end
        if not frame.startswith(before):
            return self._learn(frame)
        if not frame.startswith(behind, id_end):  # ids have one length, so it stands where it stood the last time
            id_end = frame.find(b'"', len(before), len(before) + MAX_EVENT_ID_CHARS)
            if id_end == -1 or not frame.startswith(behind, id_end):
                return self._learn(frame)
            self._id_end = id_end
        if not frame[len(before) : id_end].isalnum():
            return self._learn(frame)
        start, end = id_end + len(behind), len(frame) - 2
        if frame.find(b'"', start) != end or frame.find(b"\\", start) != -1 or not frame.endswith(b'"}'):
            return self._learn(frame)
        last, padding = self._last, 0
        if frame[end - 1] == _EQUALS:
            padding = 2 if frame[end - 2] == _EQUALS else 1
        if end - start != last.payload or padding != last.padding:
            self._last = last = AudioDelta(last.item_id, last.response_id, end - start, padding)
        return last

    def _learn(self, frame: bytes) -> AudioDelta | None:
        """Read a frame of any shape, and remember its head when it may come again."""
        delta = audio_delta(frame)
        if delta is None:
            return None
        head_end = len(frame) - 2 - delta.payload
        found = EVENT_ID.search(frame, 0, head_end)
        if found is not None and all(frame.count(key, 0, head_end) == 1 for key in KEYS):
            self._before, self._last = frame[: found.end(1)], delta
            self._behind, self._id_end = frame[found.end() - 1 : head_end], found.end() - 1
        return delta
