"""Figures come out in Prometheus' format, by closed sets of labels, and hold nothing of users."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from core.errors import ENDINGS
from services.metrics import MAX_CODES, Metrics


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """What a scrape reads: name and label values → figure."""
    text = metrics.render().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_sessions_are_counted_live_and_by_end() -> None:
    """A session is live between opened and ended, and is then counted by channel and end reason."""
    metrics = Metrics()
    metrics.session_opened("phone")
    metrics.session_opened("phone")
    metrics.session_ended("phone", "client_left")
    read = samples(metrics)
    assert read["voice_sessions_live", "phone"] == 1
    assert read["voice_sessions_live", "browser"] == 0
    assert read["voice_sessions_ended_total", "phone", "client_left"] == 1


def test_every_end_reason_of_the_table_is_a_label() -> None:
    """Each end reason the server can store is counted under its own name."""
    metrics = Metrics()
    for ending in ENDINGS:
        metrics.session_opened("browser")
        metrics.session_ended("browser", ending.end_reason)
    read = samples(metrics)
    assert all(read["voice_sessions_ended_total", "browser", ending.end_reason] for ending in ENDINGS)


def test_times_land_in_histograms() -> None:
    """Setup, first sound, handshakes and tool calls are histograms in seconds."""
    metrics = Metrics()
    metrics.setup_seconds("browser", 0.3)
    metrics.first_audio_seconds("phone", 0.64)
    metrics.upstream_connected(0.2)
    metrics.tool_called("http", "timeout", 10.0)
    read = samples(metrics)
    assert read["voice_setup_seconds_count", "browser"] == 1
    assert read["voice_first_audio_seconds_bucket", "phone", "0.6"] == 0
    assert read["voice_first_audio_seconds_bucket", "phone", "0.8"] == 1
    assert read["voice_upstream_connect_seconds_sum",] == 0.2
    assert read["voice_tool_seconds_count", "http", "timeout"] == 1


def test_counters_add_up() -> None:
    """Reconnects, drops, refusals and cost are counted; a cost that is no cost is left out."""
    metrics = Metrics()
    metrics.upstream_reconnected()
    metrics.dropped("audio", 3)
    metrics.dropped("audio")
    metrics.refused("unknown_event")
    metrics.refused(4001)
    metrics.cost(0.25)
    metrics.cost(-1.0)
    metrics.cost(float("nan"))
    metrics.cost(float("inf"))
    read = samples(metrics)
    assert read["voice_upstream_reconnects_total",] == 1
    assert read["voice_queue_dropped_total", "audio"] == 4
    assert read["voice_client_refused_total", "unknown_event"] == 1
    assert read["voice_client_refused_total", "4001"] == 1
    assert read["voice_cost_usd_total",] == 0.25


def test_strange_labels_cannot_make_the_registry_grow() -> None:
    """Whatever is handed in as a label, the number of series stays bounded and no text of a user appears."""
    metrics = Metrics()
    for number in range(500):
        metrics.refused(f"code_{number}")
        metrics.refused(f"spoken sentence {number}")
        metrics.dropped(f"lane {number}", 1)
        metrics.tool_called("book_table_for_smith", f"outcome{number}", 0.1)
        metrics.session_opened(f"channel{number}")
        metrics.session_ended(f"channel{number}", f"reason{number}")
    read = samples(metrics)
    assert len([key for key in read if key[0] == "voice_client_refused_total"]) == MAX_CODES + 1
    assert read["voice_queue_dropped_total", "other"] == 500
    assert read["voice_tool_seconds_count", "other", "other"] == 500
    assert read["voice_sessions_ended_total", "other", "other"] == 500
    assert "sentence" not in metrics.render().decode()
    assert "smith" not in metrics.render().decode()


def test_watched_figures_are_read_at_each_scrape() -> None:
    """Spool, event loop, lost log lines, memory and descriptors show the value of the moment of the scrape."""
    metrics = Metrics()
    pending = [0]
    metrics.watch_spool(lambda: pending[0], lambda: 61.5)
    metrics.watch_loop(lambda: 1.2)
    metrics.watch_log(lambda: 4)
    metrics.watch_links(lambda: 3)
    pending[0] = 7
    read = samples(metrics)
    assert read["voice_spool_pending",] == 7
    assert read["voice_spool_oldest_seconds",] == 61.5
    assert read["voice_event_loop_lag_p99_seconds",] == 0.0012
    assert read["voice_log_lines_lost",] == 4
    assert read["voice_upstream_tls_resumed",] == 3
    assert read["process_resident_memory_bytes",] > 1_000_000
    assert read["process_open_fds",] > 2


def test_two_registries_do_not_share_figures() -> None:
    """Each Metrics counts for itself, as two workers in one test process must."""
    one, other = Metrics(), Metrics()
    one.session_opened("phone")
    assert samples(other)["voice_sessions_live", "phone"] == 0
