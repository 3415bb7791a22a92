"""Alerts and dashboard ask for figures this server really has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest

from tests.fakes.gateway import Gateway

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = re.compile(r"\b(?:voice|process)_[a-z0-9_]+\b")
SUFFIX = re.compile(r"_(?:total|bucket|count|sum)$")


def figures(text: str) -> set[str]:
    """Return the names of the series in a text of `/metrics`."""
    return {SUFFIX.sub("", line.split()[2]) for line in text.splitlines() if line.startswith("# TYPE")}


def test_every_series_that_is_asked_for_exists(demo_metrics):
    """A series that was renamed would leave a chart empty and an alert silent."""
    names = ("prometheus-alerts.yml", "grafana-dashboard.json")
    texts = [(DEPLOY / name).read_text(encoding="utf-8") for name in names]
    assert all(len(NAME.findall(text)) > 5 for text in texts) and json.loads(texts[1])["panels"]
    assert {SUFFIX.sub("", name) for text in texts for name in NAME.findall(text)} - figures(demo_metrics) == set()


@pytest.mark.parametrize(
    "series",
    ["voice_build_info{version=", "voice_draining 0.0", "voice_sessions_limit 1000.0", "voice_places_in_use 0.0",
     'voice_check_up{check="database"} 1.0', "voice_event_loop_lag_seconds_bucket", "voice_spool_dead 0.0"],
)  # fmt: skip
def test_what_the_server_tells_about_itself(demo_metrics, series):
    """The state of the server is there before its first session."""
    assert series in demo_metrics


@pytest.fixture(scope="module")
def demo_metrics():
    """Return what a server without sessions answers to Prometheus after one look at its health."""
    with Gateway() as gateway, httpx.Client() as http:
        assert http.get(f"{gateway.health_url}/health").status_code == 200
        return http.get(f"{gateway.health_url}/metrics").text
