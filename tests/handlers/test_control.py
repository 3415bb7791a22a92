"""The control socket: what siblings ask a worker."""

from __future__ import annotations

import pytest

from services.siblings import ask_one_sync, living
from tests.fakes.browser import STRANGER_ID, USER_ID, Browser


def ask(gateway, method, path, body=None):
    """Return what the gateway's worker answers on its socket."""
    answer = ask_one_sync(gateway.state_dir / "run", gateway.server.context.worker, method, path, body, timeout_s=5.0)
    assert answer is not None
    return answer


def test_worker_tells_its_part(gateway):
    """Metrics and health of this worker alone come as they are, and it can be found."""
    context = gateway.server.context
    assert living(gateway.state_dir / "run") == [context.worker] == [f"{gateway.server.port}-0"]
    metrics = ask(gateway, "GET", "/metrics")
    assert b'voice_sessions_live{channel="browser"} 0.0' in metrics.body
    part = ask(gateway, "GET", "/health-part").json()
    assert part["transcripts"] == {"status": "up", "pending": 0, "oldest_s": 0} and part["uptime"] > 0


def test_talk_that_goes_on_elsewhere_ends_here(gateway):
    """A sibling ends the same user's session, which closes normally; nobody else's, and none that came later."""
    with Browser(gateway) as browser:
        conversation_id = browser.live()
        asked = {"conversation_id": conversation_id, "user_id": USER_ID}
        assert ask(gateway, "POST", "/replace", {**asked, "user_id": STRANGER_ID}).json() == {"replaced": False}
        assert ask(gateway, "POST", "/replace", {**asked, "before": 0.0}).json() == {"replaced": False}
        assert ask(gateway, "POST", "/replace", asked).json() == {"replaced": True}
        assert browser.end().code == 1000
        assert ask(gateway, "POST", "/replace", asked).json() == {"replaced": False}


@pytest.mark.parametrize("body", [None, [], "text", 7])
def test_order_that_is_no_object_is_refused(gateway, body):
    """What cannot be understood is answered with 400 and does nothing."""
    assert ask(gateway, "POST", "/replace", body).status == 400


def test_disk_that_takes_no_sockets_is_told(make, monkeypatch):
    """Without a control socket the server serves all the same."""

    def refuse(run_dir, worker):
        raise PermissionError("no sockets here")

    monkeypatch.setattr("server.open_control_socket", refuse)
    gateway = make()
    with Browser(gateway) as browser:
        browser.live()
    assert "no control socket" in gateway.log_text()
