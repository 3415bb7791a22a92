"""What a process of the load has sent and received, and how long messages took."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

EVERY = 4
"""Of so many audio messages one is timed: enough for a p99, and reading clocks stays a small part of the load."""

MAX_SAMPLES = 500_000
"""Four megabytes; at 300 talking sessions more than a minute."""


@dataclass(slots=True)
class Counters:
    """Counts since the process began; what is measured is the difference between two readings.

    Attributes:
        sent: Audio messages sent.
        received: Audio messages received, in units of what the other end sends at a time: two that were merged on
            the way count two.
        control: Other messages received.
        opened, lost: Sessions that could talk, and those that ended by themselves or never could.
        reasons: Why sessions were lost, and how often.
        unsampled: Audio messages received since one was timed.
    """

    sent: int = 0
    received: int = 0
    control: int = 0
    opened: int = 0
    lost: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    unsampled: int = 0
    _samples: array[int] = field(default_factory=lambda: array("Q"))

    def heard(self, chars: int, unit: int) -> bool:
        """Count audio of so many characters of base64, of which the other end sends `unit` at a time.

        Returns:
            Whether this message is to be timed with `took`.
        """
        self.received += max((chars + unit // 2) // unit, 1)
        self.unsampled += 1
        if self.unsampled < EVERY:
            return False
        self.unsampled = 0
        return True

    def took(self, nanoseconds: int) -> None:
        """Note how long one message was on its way."""
        if len(self._samples) < MAX_SAMPLES:
            self._samples.append(max(nanoseconds, 0))

    def lose(self, reason: str) -> None:
        """Count a session that ended by itself."""
        self.lost += 1
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def read(self) -> dict[str, Any]:
        """Return the counts, and how long messages took since the last reading: milliseconds, None without any."""
        samples, self._samples = sorted(self._samples), array("Q")
        return {
            "sent": self.sent, "received": self.received, "control": self.control, "opened": self.opened,
            "lost": self.lost, "reasons": dict(self.reasons),
            "p50_ms": percentile(samples, 0.50), "p99_ms": percentile(samples, 0.99),
        }  # fmt: skip


def percentile(ordered: Sequence[int], share: float) -> float | None:
    """Return a percentile of sorted nanoseconds in milliseconds; None when there are none."""
    if not ordered:
        return None
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] / 1e6, 3)
