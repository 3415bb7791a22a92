"""The answers of several workers as the answer of one server: checks of /health, and metrics.

`handlers.health` asks the workers; what each of them says of itself is made there and in `services.metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WORST_FIRST = ("down", "up", "unknown")
"""A check is as bad as its worst worker's; a worker that has not tried says nothing against those that have."""


def merged_checks(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the checks of one server from those of its workers, of which there is at least one.

    Counts are added up; of ages, delays and lags the worst is kept.
    """
    transcripts = [part["transcripts"] for part in parts]
    connects = [part["openai"]["last_connect_ms"] for part in parts if part["openai"]["last_connect_ms"] is not None]
    return {
        "openai": {
            "status": _worst([part["openai"]["status"] for part in parts]),
            "last_connect_ms": max(connects, default=None),
        },
        "transcripts": {
            "status": _worst([one["status"] for one in transcripts]),
            "pending": sum(one["pending"] for one in transcripts),
            "oldest_s": max(one["oldest_s"] for one in transcripts),
        },
        "event_loop": {"lag_p99_ms": max(part["event_loop"]["lag_p99_ms"] for part in parts)},
    }


def _worst(statuses: Sequence[str]) -> str:
    return min(statuses, key=WORST_FIRST.index)


def merged_metrics(texts: Mapping[str, str]) -> str:
    """Return the metrics of several workers as one text in Prometheus' format.

    Every sample gets the label `worker`, so that each counter is one worker's whoever answers the scrape: a sum would
    fall when a worker is missing. Each family stands once, under its first HELP and TYPE.

    Args:
        texts: What each worker's registry says, by worker. No sample has a label `worker` yet.
    """
    families: dict[str, tuple[list[str], list[str]]] = {}
    for worker, text in texts.items():
        heads, samples = families.setdefault("", ([], []))
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                heads, samples = families.setdefault(line.split(" ")[2], ([], []))
                if not any(line.split(" ")[1] == head.split(" ")[1] for head in heads):
                    heads.append(line)
            elif line and not line.startswith("#"):
                samples.append(_labelled(line, worker))
    lines = [line for heads, samples in families.values() for line in (*heads, *samples)]
    return "\n".join(lines) + "\n"


def _labelled(sample: str, worker: str) -> str:
    """Return a sample with the worker as its first label; names hold neither braces nor blanks."""
    name, brace, rest = sample.partition("{")
    if brace:
        return f'{name}{{worker="{worker}",{rest}'
    name, _, value = sample.partition(" ")
    return f'{name}{{worker="{worker}"}} {value}'
