"""What several workers say, as one server."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from core.workers import merged_checks, merged_metrics
from services.metrics import Metrics


def part(**changes: Any) -> dict[str, Any]:
    """Return a worker's checks."""
    openai = {"status": changes.get("openai", "up"), "last_connect_ms": changes.get("connect", 100.0)}
    pending, oldest, store = changes.get("pending", 0), changes.get("oldest", 0), changes.get("store", "up")
    transcripts = {"status": store, "pending": pending, "oldest_s": oldest}
    return {"openai": openai, "transcripts": transcripts, "event_loop": {"lag_p99_ms": changes.get("lag", 1.0)}}


def test_counts_add_up_and_the_worst_is_kept():
    """Pending rows are the server's, ages and lags the worst worker's, and one worker that is down is told."""
    merged = merged_checks([part(pending=2, oldest=1, lag=3.0), part(pending=3, oldest=9, connect=300.0, store="down")])
    assert merged == {
        "openai": {"status": "up", "last_connect_ms": 300.0},
        "transcripts": {"status": "down", "pending": 5, "oldest_s": 9},
        "event_loop": {"lag_p99_ms": 3.0},
    }


def test_worker_that_has_not_tried_says_nothing():
    """A link of one worker is what is known of the voice service, unless another cannot open one."""
    fresh = part(openai="unknown", connect=None)
    assert merged_checks([fresh, part()])["openai"] == {"status": "up", "last_connect_ms": 100.0}
    assert merged_checks([fresh])["openai"] == {"status": "unknown", "last_connect_ms": None}
    assert merged_checks([fresh, part(openai="down")])["openai"]["status"] == "down"


def test_every_sample_names_its_worker_and_every_family_stands_once():
    """Prometheus' own parser reads the merged text, each worker's figures apart."""
    texts = {}
    for count, worker in enumerate(("8080-0", "8080-1"), start=1):
        metrics = Metrics()
        for _ in range(count):
            metrics.session_opened("phone")
            metrics.first_audio_seconds("phone", 0.3)
        texts[worker] = metrics.render().decode()
    merged = merged_metrics(texts)
    families = {family.name: family for family in text_string_to_metric_families(merged)}
    assert merged.count("# TYPE voice_sessions_live ") == 1 and merged.count("# HELP voice_sessions_live ") == 1
    live = {(s.labels["worker"], s.labels["channel"]): s.value for s in families["voice_sessions_live"].samples}
    assert live[("8080-0", "phone")] == 1.0 and live[("8080-1", "phone")] == 2.0
    samples = [sample for family in families.values() for sample in family.samples]
    assert samples and all(sample.labels["worker"] in texts for sample in samples)
    for worker, text in texts.items():
        alone = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        assert len(alone) == sum(sample.labels["worker"] == worker for sample in samples)


def test_lines_without_a_family_are_kept():
    """A sample before any HELP stays a sample, and comments are left out."""
    assert merged_metrics({"w": "# a remark\nup 1\n\n"}) == 'up{worker="w"} 1\n'
    assert merged_metrics({}) == "\n"
