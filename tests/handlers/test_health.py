"""/health, /ready and /metrics, on both ports."""

from __future__ import annotations

import re
import time
from datetime import datetime

import httpx
import pytest

from core.errors import ENDINGS
from handlers import health as health_module
from services.spool import SpoolStats
from tests.fakes.broken import HeldStore, NoKey
from tests.fakes.browser import USER_ID, Browser, eventually

CONTRACT = {
    *("status", "activeConnections", "maxConnections", "uptime", "timestamp", "version", "workers", "browser"),
    *("phone", "checks"),
}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Have every request checked anew."""
    monkeypatch.setattr(health_module, "CACHE_S", -1.0)


def test_healthy_server_says_so_on_both_ports(gateway):
    """The report has the contract's fields, counts the live sessions, and names nobody."""
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        for base in (gateway.url, gateway.health_url):
            answer = httpx.get(f"{base}/health")
            assert answer.status_code == 200 and answer.headers["Cache-Control"] == "no-store"
            report = answer.json()
            assert set(report) == CONTRACT
            assert (report["status"], report["activeConnections"], report["browser"]) == ("healthy", 1, 1)
            assert report["checks"]["openai"]["status"] == "up" and report["checks"]["openai"]["last_connect_ms"] > 0
            assert set(report["checks"]) == {"database", "auth", "openai", "transcripts", "event_loop"}
            for personal in (USER_ID, conversation_id, "127.0.0.1", "sqlite"):
                assert personal not in answer.text
    moment = datetime.fromisoformat(report["timestamp"])
    assert abs(moment.timestamp() - time.time()) < 10 and report["timestamp"].endswith("Z")


def test_failing_service_degrades(gateway):
    """Links that fail again and again degrade the server, which goes on to serve."""
    gateway.server.context.upstream_failures = health_module.FAILING_LINKS
    answer = httpx.get(f"{gateway.url}/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded" and answer.json()["checks"]["openai"]["status"] == "down"


def test_missing_worker_degrades_and_every_sample_names_its_worker(make):
    """A server that should have two workers says that one is missing, and labels what it has."""
    gateway = make({"WORKERS": "2"})
    report = httpx.get(f"{gateway.health_url}/health").json()
    assert (report["status"], report["workers"]) == ("degraded", 1)
    text = httpx.get(f"{gateway.health_url}/metrics").text
    worker = gateway.server.context.worker
    assert f'voice_sessions_live{{worker="{worker}",channel="phone"}} 0.0' in text
    assert all(f'worker="{worker}"' in line for line in text.splitlines() if not line.startswith("#"))


def test_broken_database_degrades_and_is_not_ready(make):
    """A database that fails makes /ready 503 within two seconds, while /health tells why."""
    gateway = make()
    assert httpx.get(f"{gateway.url}/ready").status_code == 200

    gateway.server.context.store = HeldStore(gateway.server.context.store, fails=True)
    began = time.monotonic()
    assert httpx.get(f"{gateway.url}/ready").status_code == 503
    assert time.monotonic() - began < 2.5
    report = httpx.get(f"{gateway.url}/health").json()
    assert report["status"] == "degraded" and report["checks"]["database"] == {"status": "down"}


def test_missing_key_or_room_is_not_ready(make):
    """Without a key, or with every place taken, new sessions are better sent elsewhere."""
    gateway = make({"MAX_CONNECTIONS": "1"})
    keys, gateway.server.context.keys = gateway.server.context.keys, NoKey()
    assert httpx.get(f"{gateway.url}/ready").status_code == 503
    gateway.server.context.keys = keys
    assert httpx.get(f"{gateway.url}/ready").json() == {"ready": True}
    with Browser(gateway) as browser:
        browser.live()
        assert httpx.get(f"{gateway.url}/ready").status_code == 503
        assert httpx.get(f"{gateway.url}/health").status_code == 200


def test_draining_server_says_so(gateway):
    """While the server drains both answers are 503."""
    gateway.server.context.connections.is_draining = True
    answer = httpx.get(f"{gateway.url}/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "draining")
    assert httpx.get(f"{gateway.url}/ready").status_code == 503


def test_monitors_may_ask_with_head(gateway):
    """A HEAD request gets the status alone."""
    for path in ("/health", "/ready"):
        answer = httpx.head(gateway.url + path)
        assert answer.status_code == 200 and answer.content == b""


def test_report_is_kept_for_a_moment(gateway, monkeypatch):
    """Many requests ask the database once."""
    monkeypatch.setattr(health_module, "CACHE_S", 60.0)
    first = httpx.get(f"{gateway.url}/health").json()
    assert httpx.get(f"{gateway.health_url}/health").json()["timestamp"] == first["timestamp"]


def test_metrics_are_on_the_health_port_only(gateway):
    """Prometheus' text counts what happened, with labels of the table only, and is not on the public port."""
    with Browser(gateway) as browser:
        browser.live()
        browser.leave()
    with Browser(gateway, token="junk") as browser:
        browser.end()
    eventually(lambda: gateway.server.context.connections.active == 0)
    answer = httpx.get(f"{gateway.health_url}/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert 'voice_sessions_ended_total{channel="browser",end_reason="client_left"} 1.0' in answer.text
    assert 'voice_client_refused_total{code="4001"} 1.0' in answer.text
    assert 'voice_sessions_live{channel="browser"} 0.0' in answer.text
    assert set(re.findall('end_reason="([^"]*)"', answer.text)) <= {row.end_reason for row in ENDINGS}
    assert USER_ID not in answer.text
    assert httpx.get(f"{gateway.url}/metrics").status_code == 404
    assert httpx.get(f"{gateway.health_url}/nothing").json()["error"]["code"] == "not_found"


def test_transcripts_that_do_not_get_stored_degrade(gateway, monkeypatch):
    """Rows that wait for more than a minute are reported."""
    monkeypatch.setattr(gateway.server.context.spool, "stats", lambda: SpoolStats(3, 61.0, 0, 0))
    report = httpx.get(f"{gateway.url}/health").json()
    assert report["checks"]["transcripts"] == {"status": "down", "pending": 3, "oldest_s": 61}
    assert report["status"] == "degraded"
