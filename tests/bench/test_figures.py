"""Ratios are made within a round, and the bars say honestly whether they are met."""

from __future__ import annotations

from typing import Any

from bench.figures import added_ms, bars, of, parts, ratio, spread


def run_of(**measured: Any) -> dict[str, Any]:
    """Return a run of one shape, browser over a plain upstream; kinds that are not given were not measured."""
    head = {"channel": "browser", "upstream": "plain"}
    kinds = {kind: [{**head, "rounds": measured[kind]}] if kind in measured else []
             for kind in ("load", "start", "memory", "setup", "latency")}  # fmt: skip
    return {"settings": {"latency_sessions": 300}, **kinds}


def costs(**systems: float) -> dict[str, Any]:
    """Return one round: processor time a message by system."""
    return {name: {"us_per_message": cost} for name, cost in systems.items()}


def test_a_ratio_compares_what_met_the_same_machine() -> None:
    """Rounds on a slower machine do not spoil a ratio: each is divided before the median is taken."""
    run = run_of(load=[costs(nginx=10, ours=20), costs(nginx=30, ours=60), costs(nginx=10, ours=25)])
    rounds = parts(run, "load", ("browser", "plain"))
    assert ratio(rounds, "ours", "nginx") == (2.0, 2.0, 2.5)
    assert of(rounds, "ours", "us_per_message") == (25, 20, 60)
    assert ratio(rounds, "naive", "nginx") is None


def test_a_spread_of_nothing_is_nothing() -> None:
    """What was not measured has no median."""
    assert spread([None, None]) is None
    assert spread([3.0, None, 1.0]) == (2.0, 1.0, 3.0)


def test_added_latency_is_that_of_the_slower_direction() -> None:
    """A direct connection's latency is taken off in each direction, and the worse one counts."""
    direct = {"latency": {"up_p99_ms": 1.0, "down_p99_ms": 1.0}}
    ours = {"latency": {"up_p99_ms": 2.0, "down_p99_ms": 5.0}}
    assert added_ms([{"direct": direct, "ours": ours}], "ours", "p99_ms") == (4.0, 4.0, 4.0)
    assert added_ms([{"ours": ours}], "ours", "p99_ms") is None


def test_a_bar_is_met_missed_or_not_measured() -> None:
    """The median decides; what a run did not measure is not called met."""
    run = run_of(
        load=[costs(nginx=10, ours=19), costs(nginx=10, ours=30), costs(nginx=10, ours=18)],
        memory=[{"ours": {"talking_kib": 41.0}}],
        start=[{"ours": {"start_kib": 79_000}, "ours-supabase": {"start_kib": 70_000}}],
    )
    verdicts = {bar.name: bar.verdict for bar in bars(run)}
    assert verdicts["CPU per message, browser, plain upstream"] == "met"
    assert verdicts["CPU per message, browser, tls upstream"] == "not measured"
    assert verdicts["memory per session, plain upstream"] == "not met"
    assert verdicts["process at start, rows in SQLite"] == "not met"
    assert verdicts["process at start, rows in Supabase"] == "met"
