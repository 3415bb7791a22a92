"""The agreed ends of a conversation: longest time, longest silence, budget."""

from __future__ import annotations

from core.deadlines import Deadlines
from core.plan import Plan

WARNING_S = 60.0
"""How long before the longest session time the client is told; short sessions are told at four fifths."""

BUDGET_WARNING = 0.8
"""Share of the budget at which the client is told (contract, section 5)."""


class Limits:
    """Watches what a conversation may use up.

    Args:
        plan: Holds the limits.
        cost_before_usd: Cost of the conversation before this session.
    """

    __slots__ = ("_active_at", "_cost_before_usd", "_plan", "_warned", "ends_at", "is_spent")

    def __init__(self, plan: Plan, cost_before_usd: float) -> None:
        self._plan = plan
        self._cost_before_usd = cost_before_usd
        self._active_at = 0.0
        self._warned = False
        self.ends_at = 0.0
        self.is_spent = False

    def begin(self, deadlines: Deadlines, now: float) -> None:
        """Set the deadlines of a conversation that begins now."""
        self._active_at = now
        self.ends_at = now + self._plan.max_session_s
        deadlines.set("time_limit", self.ends_at)
        warning_s = WARNING_S if self._plan.max_session_s >= 5 * WARNING_S else self._plan.max_session_s / 5
        deadlines.set("time_limit_soon", self.ends_at - warning_s)
        deadlines.set("idle", now + self._plan.idle_s)

    def active(self, at: float) -> None:
        """Take note of speech or of a client event; an earlier time than the latest one changes nothing."""
        self._active_at = max(self._active_at, at)

    def idle_until(self, now: float) -> float | None:
        """Return when the silence would last too long, or None when it already does."""
        until = self._active_at + self._plan.idle_s
        return until if until > now else None

    def spent(self, cost_usd: float) -> bool:
        """Take the conversation's cost; True once, when most of the user's budget is used up."""
        budget = self._plan.budget_usd
        if budget is None:
            return False
        today = self._plan.spent_usd + cost_usd - self._cost_before_usd
        self.is_spent = today >= budget
        if self._warned or today < BUDGET_WARNING * budget:
            return False
        self._warned = True
        return True
