"""What happened lately in a conversation, by type and time: never what was said.

For the operator who looks at a live session. Written where control events are read anyway; audio does not come by here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Literal

KEPT = 50
"""Happenings remembered: the last three or four turns of a talk, in 5 KB."""

MAX_NAME_CHARS = 80
"""Longest name kept; the longest event type of the Realtime API has 57 characters."""

Side = Literal["client", "model"]


class Happening:
    """One event, or several of one type and side that came one after the other.

    Attributes:
        at: When the last of them came, in seconds of the clock the conversation is given.
        side: Whose event it was.
        name: Its type.
        times: How many there were.
    """

    __slots__ = ("at", "name", "side", "times")

    def __init__(self, at: float, side: Side, name: str) -> None:
        self.at = at
        self.side = side
        self.name = name
        self.times = 1


class Happenings:
    """The latest happenings, oldest first; the oldest is forgotten first."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: list[Happening] = []

    def note(self, side: Side, name: str, now: float) -> None:
        """Remember that an event came; one like the last only adds to its count."""
        last = self._kept[-1] if self._kept else None
        if last is not None and last.name == name and last.side == side:
            last.at, last.times = now, last.times + 1
        else:
            # one copy of each name for all conversations of the process
            self._kept.append(Happening(now, side, sys.intern(name[:MAX_NAME_CHARS])))
            if len(self._kept) > KEPT:
                del self._kept[0]

    def __iter__(self) -> Iterator[Happening]:
        return iter(self._kept)
