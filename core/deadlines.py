"""Every wait has a deadline: named times on one monotonic clock.

No timer runs here: the conversation asks which deadlines are over, and tells the relay when to ask next.
"""

from __future__ import annotations

from collections.abc import Iterator

OPEN_S = 12.0
"""Longest wait for a link: the 8 s handshake limit of `services/upstream/opening.py`, name resolution and a margin."""

CONFIGURE_S = 5.0
"""Longest wait for `session.updated`, which usually takes one round trip."""


class Deadlines:
    """A few named times in seconds of the caller's monotonic clock."""

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def set(self, name: str, at: float | None) -> None:
        """Set or move a deadline; None forgets it."""
        if at is None:
            self.clear(name)
        else:
            self._at[name] = at

    def clear(self, name: str) -> None:
        """Forget a deadline, set or not."""
        self._at.pop(name, None)

    def clear_all(self) -> None:
        """Forget every deadline."""
        self._at.clear()

    def __contains__(self, name: str) -> bool:
        return name in self._at

    @property
    def next(self) -> float | None:
        """The earliest deadline, or None when there is none."""
        return min(self._at.values(), default=None)

    def over(self, now: float) -> Iterator[str]:
        """Yield and forget the deadlines that are over, earliest first; setting one meanwhile is allowed."""
        for name, at in sorted(self._at.items(), key=lambda entry: entry[1]):
            if at <= now and self._at.get(name) == at:
                del self._at[name]
                yield name
