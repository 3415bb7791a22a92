"""How much is logged: one line per cause and second, and a pause while the disk takes none.

Counterpart of `services/log.py`, which hands in monotonic time in seconds. Neither class takes a lock: a destructor
may log while another line is under way, and a count that is off by one does less harm than a process that stands still.
"""

from __future__ import annotations

LINE_INTERVAL_S = 1.0
"""One line a second and cause: under overload the log stays readable and the disk alive."""

MAX_REMEMBERED = 1_000
"""Causes remembered at a time; the one unseen longest is forgotten first."""

DISK_BACKOFF_S = 1.0
"""Pause after a failed write: trying a full disk costs about 0.5 ms a line (operations reference, section 1.5)."""

Cause = tuple[object, ...]


class RateLimit:
    """Admits one line per cause and interval, and counts those it leaves out."""

    def __init__(self) -> None:
        self._causes: dict[Cause, tuple[float, int]] = {}

    def admit(self, cause: Cause, now: float) -> int | None:
        """Return None when the line is to be left out, else how many were left out before it."""
        last, suppressed = self._causes.pop(cause, (float("-inf"), 0))
        if now - last < LINE_INTERVAL_S:
            self._causes[cause] = (last, suppressed + 1)
            return None
        self._causes[cause] = (now, 0)
        if len(self._causes) > MAX_REMEMBERED:
            self._causes.pop(next(iter(self._causes)), None)
        return suppressed

    def take_suppressed(self) -> int:
        """Return how many lines were left out and never told of, and forget all causes."""
        causes, self._causes = self._causes, {}
        return sum(suppressed for _, suppressed in causes.values())


class DiskWatch:
    """Says whether the files are worth a try, and counts the lines they did not take.

    Attributes:
        is_open: Whether the line under way goes to the files; set by `attempt`.
        lost_in_all: Lines not taken since the start.
    """

    def __init__(self) -> None:
        self.is_open = True
        self.lost_in_all = 0
        self._untold = 0
        self._retry_at = float("-inf")

    def attempt(self, now: float) -> None:
        """Begin a line: it goes to the files, or is counted as lost while they are given a pause."""
        self.is_open = now >= self._retry_at
        if not self.is_open:
            self.lose()

    def failed(self, now: float) -> None:
        """Count the line under way as lost and leave the files alone for a while."""
        self._retry_at = now + DISK_BACKOFF_S
        self.lose()

    def lose(self) -> None:
        """Count a line as lost."""
        self._untold += 1
        self.lost_in_all += 1

    def take_untold(self) -> int:
        """Return the lines lost since the files were last written to; 0 while they are given a pause."""
        if not self.is_open:
            return 0
        untold, self._untold = self._untold, 0
        return untold
