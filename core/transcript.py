"""Deltas to turns, ordered by item links and stored as heard.

An entry is opened when its item enters the conversation and keeps that place, however late its text comes. It becomes a
`Turn` once: a user's when its transcription ends, an answer's when it was heard to its end or cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from core.playback import Heard
from core.realtime import Event
from core.records import Role, Turn, TurnStatus, clean_text
from core.tools import output_item

INAUDIBLE = "[inaudible]"
"""Stored for a user's turn whose transcription failed or never came."""

TRANSCRIPTION_WAIT_S = 20.0
"""How long a user's transcription may take after the commit; it usually comes within two seconds and has no promised
limit (OpenAI Realtime reference, section 6), and the turn's row must not wait for the end of a long call."""


@dataclass(slots=True)
class Entry:
    """One item of the conversation on its way to a stored turn."""

    item_id: str
    role: Role
    position: int
    text: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    is_audio: bool = False
    is_final: bool = False
    is_stored: bool = False
    waits_until: float | None = None


class Transcript:
    """The turns of one conversation, past ones included.

    Args:
        history: Stored turns to go on from, oldest first.
        next_position: First free position in the conversation.
    """

    __slots__ = ("_entries", "_history", "_next", "_open", "_order", "turn_count")

    def __init__(self, history: Iterable[Turn] = (), *, next_position: int = 0) -> None:
        self._history = list(history)
        self._entries: dict[str, Entry] = {}
        self._open: dict[str, Entry] = {}  # those not stored: few, however long the talk
        self._order: list[str] = []
        self._next = next_position
        self.turn_count = 0

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._entries

    def get(self, item_id: str) -> Entry | None:
        """Return the entry of an item, or None."""
        return self._entries.get(item_id)

    def open(self, item_id: str, role: Role, previous_item_id: str | None = None) -> Entry:
        """Return the item's entry, at its place behind `previous_item_id`; opening it twice changes nothing."""
        entry = self._entries.get(item_id)
        if entry is None:
            entry = self._entries[item_id] = self._open[item_id] = Entry(item_id, role, self._next)
            self._next += 1
            self._place(entry, previous_item_id)
        return entry

    def _place(self, entry: Entry, previous_item_id: str | None) -> None:
        """Put the entry behind its predecessor; entries after it that are not yet stored move one place on."""
        at = self._order.index(previous_item_id) + 1 if previous_item_id in self._entries else len(self._order)
        movable = [self._entries[item_id] for item_id in self._order[at:] if not self._entries[item_id].is_stored]
        self._order.insert(at, entry.item_id)
        if movable:
            places = sorted([entry.position, *(later.position for later in movable)])
            for later, place in zip([entry, *movable], places, strict=True):
                later.position = place

    def committed(self, item_id: str, previous_item_id: str | None, now: float) -> None:
        """Take note of a user's spoken turn, whose text may come later."""
        entry = self.open(item_id, "user", previous_item_id)
        entry.is_audio = True
        entry.waits_until = now + TRANSCRIPTION_WAIT_S

    def wrote(self, item_id: str, text: str) -> None:
        """Add a piece of an answer's text."""
        entry = self._entries.get(item_id)
        if entry is not None and not entry.is_final:
            entry.text += text

    def finished(self, item_id: str, text: str) -> None:
        """Take the whole text of an answer."""
        entry = self._entries.get(item_id)
        if entry is not None and not entry.is_stored:
            entry.text, entry.is_final = text, True

    def said(self, item_id: str, text: str | None, *, previous_item_id: str | None = None) -> list[Turn]:
        """Take what a user said or typed; None when it could not be written down."""
        entry = self.open(item_id, "user", previous_item_id)
        if text is None:
            return self._store(entry, INAUDIBLE, "failed")
        return self._store(entry, text, "complete")

    def ran_tool(self, call_id: str, output: str, metadata: dict[str, Any]) -> list[Turn]:
        """Take a finished tool call; it is stored under its `call_id`, which no later session gives out again."""
        entry = self.open(call_id, "tool")
        entry.metadata = metadata
        return self._store(entry, output, "complete")

    def answered(self, heard: Heard, *, status: TurnStatus = "complete") -> list[Turn]:
        """Take how much of an answer was heard; of one that was cut only the heard share of its text is kept.

        Text is shared out by time and cut at a word, since the API tells no word times.
        """
        entry = self._entries.get(heard.item_id)
        if entry is None or entry.role != "assistant":
            return []
        if not entry.is_audio:
            return self._store(entry, entry.text, status)
        if not heard.is_whole or not heard.spoken_ms:
            return self._store(entry, heard_text(entry.text, heard), "interrupted", heard)
        return self._store(entry, entry.text, status, heard)

    def overdue(self, now: float) -> list[Turn]:
        """Return the users' turns whose transcription did not come in time."""
        late = [e for e in self._open.values() if e.role == "user" and (e.waits_until or now + 1) <= now]
        return [turn for entry in late for turn in self._store(entry, INAUDIBLE, "failed")]

    def next_overdue(self) -> float | None:
        """Return when the next transcription becomes overdue, or None."""
        at = None
        for entry in self._open.values():
            if entry.waits_until is not None and (at is None or entry.waits_until < at):
                at = entry.waits_until
        return at

    def open_answers(self) -> list[str]:
        """Return the ids of answers that are not stored yet, in order."""
        answers = [entry for entry in self._open.values() if entry.role == "assistant"]
        return [entry.item_id for entry in sorted(answers, key=lambda entry: entry.position)]

    def close_users(self) -> list[Turn]:
        """Store what is left of users' turns at the end of the session."""
        left = [entry for entry in self._open.values() if entry.role == "user"]
        return [turn for entry in left if entry.is_audio for turn in self._store(entry, INAUDIBLE, "failed")]

    def _store(self, entry: Entry, text: str, status: TurnStatus, heard: Heard | None = None) -> list[Turn]:
        """Return the entry as a turn the first time, nothing after that or when there is nothing to tell."""
        if entry.is_stored:
            return []
        entry.is_stored = entry.is_final = True
        del self._open[entry.item_id]
        entry.text = text = clean_text(text).strip()
        if not text and not (heard and heard.heard_ms):
            return []
        self.turn_count += entry.role in {"user", "assistant"}
        turn = Turn(entry.item_id, entry.position, entry.role, text, status, metadata=entry.metadata)
        if heard is not None:
            turn = replace(turn, heard_ms=heard.heard_ms, spoken_ms=heard.spoken_ms)
        self._history.append(turn)
        return [turn]

    def shown(self, limit: int) -> list[Shown]:
        """Return the last `limit` turns in conversation order, those under way with what is there of them.

        Of a tool call only the tool's name is told.
        """
        turns = [Shown(t.item_id, t.position, t.role, _told(t), t.status) for t in self._history]
        growing = self._open.values()
        turns += [Shown(e.item_id, e.position, e.role, clean_text(e.text).strip(), "growing") for e in growing]
        return sorted(turns, key=lambda turn: turn.position)[-limit:]

    def replay(self, limit: int) -> list[Event]:
        """Return the last `limit` turns as items for a fresh session, in conversation order.

        Answers are given back as text, since audio of the assistant cannot be created; a tool call and its output are
        given back as a pair (OpenAI Realtime reference, section 13). An answer that is still being heard is in it.
        """
        playing = [self._entries[item_id] for item_id in self.open_answers()]
        turns = [*self._history, *(Turn(e.item_id, e.position, e.role, clean_text(e.text).strip()) for e in playing)]
        turns = sorted(turns, key=lambda turn: turn.position)[-limit:]
        return [item for turn in turns for item in _items(turn)]


class Shown(NamedTuple):
    """A turn as far as it is known, for the operator.

    Attributes:
        status: As of a stored turn; `growing` for one under way.
    """

    item_id: str
    position: int
    role: Role
    text: str
    status: str


def heard_text(text: str, heard: Heard) -> str:
    """Return the share of a text that was heard, cut at a word."""
    if heard.spoken_ms <= 0:
        return ""
    end = len(text) * min(heard.heard_ms, heard.spoken_ms) // heard.spoken_ms
    if end >= len(text) or text[end].isspace():
        return text[:end]
    return text[:end].rpartition(" ")[0]


def _told(turn: Turn) -> str:
    return str(turn.metadata.get("name") or "") if turn.role == "tool" else turn.content


def _items(turn: Turn) -> list[Event]:
    if turn.role == "tool":
        return _tool_items(turn)
    if not turn.content or turn.content == INAUDIBLE:
        return []
    kind = "output_text" if turn.role == "assistant" else "input_text"
    return [{"type": "message", "role": turn.role, "content": [{"type": kind, "text": turn.content}]}]


def _tool_items(turn: Turn) -> list[Event]:
    name, call_id = turn.metadata.get("name"), turn.metadata.get("call_id")
    if not name or not call_id:
        return []
    arguments = str(turn.metadata.get("arguments", "{}"))
    return [
        {"type": "function_call", "name": name, "call_id": call_id, "arguments": arguments},
        output_item(call_id, turn.content),
    ]
