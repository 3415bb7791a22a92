"""From a moderate load follows the one that is tried next."""

from __future__ import annotations

from bench.capacity import MOST_SESSIONS, Plan, next_load
from bench.rig import Window

PLAN = Plan(sessions=100, seconds=2.0, opened=10)


def window(server_s: float, load_s: float) -> Window:
    """Return a window of one second in which server and load used so much."""
    return Window("ours", server_s, 1.0, up=2500, down=5000, offered=7500, latency={}, load_cpu_s=load_s,
                  others_share=0.0)  # fmt: skip


def test_the_next_load_fills_a_core_to_the_mark() -> None:
    """100 sessions that need 20 % of a core lead to 350 that should need 70 %."""
    assert next_load(window(0.2, 0.2), PLAN, cores=8) == 350


def test_the_next_load_is_one_the_machine_can_feed() -> None:
    """Where the load itself would need more cores than there are, as much is tried as they carry."""
    assert next_load(window(0.2, 0.3), PLAN, cores=1) == 180


def test_the_next_load_is_bounded() -> None:
    """A server that costs next to nothing is tried with a bounded crowd; a fixed plan with its own."""
    assert next_load(window(0.001, 0.001), PLAN, cores=64) == MOST_SESSIONS
    fixed = Plan(sessions=100, seconds=2.0, opened=10, is_fixed=True)
    assert next_load(window(0.2, 0.2), fixed, cores=8) == 100
