"""Many workers seen as one server: what each tells of itself (`handlers/live.py`) put together for the operator.

The page, `./voice status` and `./voice top` show the same figures, so they are made here once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BUCKETS_MS = (200, 300, 400, 500, 600, 800, 1000, 1250, 1500, 2000, 3000, 5000)
"""Upper ends of the histogram of delays; those of `voice_first_audio_seconds`, so that both tell the same story."""

SHOWN_TROUBLES = 100
"""Warnings and errors shown of all workers together."""


def overview(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the server as one, from what each worker answered to `GET /sessions`.

    Args:
        parts: The answers by worker.

    Returns:
        `sessions` (rows with their `worker`, oldest first), `workers`, counts, `error_rate` (0 to 1, None without an
        end in the last 15 minutes), `first_audio` (`p50_ms`, `p95_ms`, `histogram`), `ended` by reason,
        `cost_today_usd` and `troubles` (oldest first).
    """
    rows = [{**row, "worker": worker} for worker, part in parts.items() for row in part["sessions"]]
    rows.sort(key=lambda row: float(row["since"]))
    channels = Counter(str(row["channel"]) for row in rows)
    return {
        "version": next((str(part["version"]) for part in parts.values()), None),
        "environment": next((str(part["environment"]) for part in parts.values()), None),
        "simulated": any(part["simulated"] for part in parts.values()),
        "uptime_s": max((int(part["uptime_s"]) for part in parts.values()), default=0),
        "draining": any(part["draining"] for part in parts.values()),
        "active": sum(int(part["active"]) for part in parts.values()),
        "max_connections": _limit(parts.values()),
        "browser": channels["browser"],
        "phone": channels["phone"],
        **_recent(parts.values()),
        "ended": dict(sum((Counter(part["ended"]) for part in parts.values()), Counter())),
        "cost_today_usd": round(_cost_today(parts.values()), 6),
        "workers": [_worker(name, part) for name, part in parts.items()],
        "sessions": rows,
        "troubles": _troubles(parts),
    }


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which `share` (0 to 1) of the values lie, by nearest rank; None of no values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def histogram(delays_ms: Iterable[float]) -> list[dict[str, Any]]:
    """Return how many delays lie up to each end of `BUCKETS_MS` and above the one before; `le_ms` None: above all."""
    counts = [0] * (len(BUCKETS_MS) + 1)
    for delay in delays_ms:
        counts[next((place for place, end in enumerate(BUCKETS_MS) if delay <= end), len(BUCKETS_MS))] += 1
    return [{"le_ms": end, "count": count} for end, count in zip((*BUCKETS_MS, None), counts, strict=True)]


def _recent(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return error rate and delays of the last 15 minutes; live sessions count with the delay they have."""
    ended = failed = 0
    delays: list[float] = []
    for part in parts:
        ended += part["recent"]["ended"]
        failed += part["recent"]["failed"]
        delays += part["recent"]["first_audio_ms"]
        delays += [row["first_audio_ms"] for row in part["sessions"] if row["first_audio_ms"] is not None]
    first_audio = {
        "p50_ms": percentile(delays, 0.5), "p95_ms": percentile(delays, 0.95), "histogram": histogram(delays),
    }  # fmt: skip
    rate = round(failed / ended, 4) if ended else None
    return {"error_rate": rate, "recent_ended": ended, "first_audio": first_audio}


def _limit(parts: Iterable[Mapping[str, Any]]) -> int:
    """Return MAX_CONNECTIONS: it holds over the workers of one port; servers on other ports have their own."""
    return sum({int(part["port"]): int(part["limits"]["max_connections"]) for part in parts}.values())


def _cost_today(parts: Iterable[Mapping[str, Any]]) -> float:
    """Return the cost of today's ends and of what is live; of a talk over midnight all counts today."""
    ended, live = 0.0, 0.0
    for part in parts:
        ended += part["cost_today_usd"]
        live += sum(max(row["cost_usd"], 0.0) for row in part["sessions"])
    return ended + live


def _worker(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    told = ("pid", "uptime_s", "draining", "rss_bytes", "lag_p99_ms", "active", "spool_pending")
    return {"worker": name, **{key: part[key] for key in told}}


def _troubles(parts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = [{**trouble, "worker": worker} for worker, part in parts.items() for trouble in part["troubles"]]
    return sorted(found, key=lambda trouble: str(trouble["time"]))[-SHOWN_TROUBLES:]
