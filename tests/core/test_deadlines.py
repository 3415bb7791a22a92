"""Named times on one clock."""

from __future__ import annotations

from core.deadlines import Deadlines


def test_the_earliest_deadline_is_the_next() -> None:
    """The caller needs one timer for all of them; without any there is none."""
    deadlines = Deadlines()
    assert deadlines.next is None
    deadlines.set("b", 2.0)
    deadlines.set("a", 1.0)
    assert deadlines.next == 1.0
    assert "a" in deadlines


def test_deadlines_are_over_in_order_and_once() -> None:
    """What is over is told earliest first, at its very time, and never again."""
    deadlines = Deadlines()
    for name, at in (("late", 3.0), ("second", 2.0), ("first", 1.0)):
        deadlines.set(name, at)
    assert list(deadlines.over(2.0)) == ["first", "second"]
    assert list(deadlines.over(2.0)) == []
    assert deadlines.next == 3.0


def test_a_deadline_moved_meanwhile_is_not_over() -> None:
    """What one deadline's end moves or forgets is respected in the same pass."""
    deadlines = Deadlines()
    for name in ("first", "moved", "forgotten"):
        deadlines.set(name, 1.0)
    seen = []
    for name in deadlines.over(1.0):
        seen.append(name)
        deadlines.set("moved", 5.0)
        deadlines.set("forgotten", None)
    assert seen == ["first"]
    assert deadlines.next == 5.0


def test_forgetting_is_allowed_at_any_time() -> None:
    """A deadline that was never set can be cleared, and all of them at once."""
    deadlines = Deadlines()
    deadlines.clear("x")
    deadlines.set("x", 1.0)
    deadlines.clear_all()
    assert "x" not in deadlines
    assert deadlines.next is None
