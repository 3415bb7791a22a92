"""The agreed ends: longest time, longest silence, budget."""

from __future__ import annotations

import pytest

from core.deadlines import Deadlines
from core.limits import Limits
from tests.dialogue import plan


@pytest.mark.parametrize(("longest_s", "told_at"), [(1800.0, 1740.0), (300.0, 240.0), (100.0, 80.0)])
def test_the_client_is_told_before_the_time_is_over(longest_s: float, told_at: float) -> None:
    """A minute before the end; in sessions under five minutes at four fifths."""
    deadlines = Deadlines()
    limits = Limits(plan(max_session_s=longest_s, idle_s=9999.0), 0.0)
    limits.begin(deadlines, 0.0)
    assert list(deadlines.over(told_at)) == ["time_limit_soon"]
    assert limits.ends_at == longest_s
    assert list(deadlines.over(longest_s)) == ["time_limit"]


def test_silence_counts_from_the_last_activity() -> None:
    """Speech or an event of the client moves the idle deadline."""
    limits = Limits(plan(idle_s=10.0), 0.0)
    limits.begin(Deadlines(), 0.0)
    assert limits.idle_until(5.0) == 10.0
    limits.active(8.0)
    assert limits.idle_until(10.0) == 18.0
    assert limits.idle_until(18.0) is None


def test_without_a_budget_nothing_is_ever_spent() -> None:
    """A server without budgets never ends a conversation for its cost."""
    limits = Limits(plan(), 0.0)
    assert not limits.spent(1e9)
    assert not limits.is_spent


def test_the_budget_is_of_the_day_and_not_of_the_conversation() -> None:
    """What a resumed conversation had cost before is not counted twice; the notice comes once, at four fifths."""
    limits = Limits(plan(budget_usd=1.0, spent_usd=0.5), 7.0)
    assert not limits.spent(7.29)
    assert limits.spent(7.31)
    assert not limits.spent(7.40)
    assert not limits.is_spent
    assert not limits.spent(7.50)
    assert limits.is_spent
