"""Which client event is behind which of ours."""

from __future__ import annotations

from core.client_requests import MAX_UNANSWERED, ClientRequests

CREATE = {"type": "response.create", "event_id": "mine"}
FAST = {"type": "session.update", "event_id": "u1", "session": {"audio": {"output": {"speed": 1.2}}}}
SLOW = {"type": "session.update", "session": {"audio": {"output": {"speed": 0.8}}}}


def test_a_refusal_finds_the_event_it_is_about() -> None:
    """The client hears of a refusal under the id it had given, once."""
    requests = ClientRequests()
    requests.sent("gw_rc_1", CREATE)
    assert "gw_rc_1" in requests
    assert requests.refused("gw_rc_1", None) == (True, "mine")
    assert requests.refused("gw_rc_1", None) == (False, None)


def test_changes_of_the_session_take_effect_in_order() -> None:
    """Each confirmation belongs to the oldest change that waits, and to no request of another kind."""
    requests = ClientRequests()
    requests.sent("gw_rc_1", CREATE)
    requests.sent("gw_cu_1", FAST)
    requests.sent("gw_cu_2", SLOW)
    assert requests.configured() == FAST["session"]
    assert requests.configured() == SLOW["session"]
    assert requests.configured() is None
    assert "gw_rc_1" in requests


def test_an_error_without_an_id_about_the_session_is_about_the_oldest_change() -> None:
    """Many errors name no event; the field they name tells what they are about."""
    requests = ClientRequests()
    requests.sent("gw_cu_1", FAST)
    requests.sent("gw_cu_2", SLOW)
    assert requests.refused(None, "item.content") == (False, None)
    assert requests.refused(None, "session.audio.output.speed") == (True, "u1")
    assert requests.configured() == SLOW["session"]
    assert requests.refused(None, "session.audio") == (False, None)


def test_a_deferred_request_is_known_by_its_new_id() -> None:
    """A create that waits for its second try is still the client's."""
    requests = ClientRequests()
    requests.sent("gw_rc_1", CREATE)
    requests.deferred("gw_rc_1", "gw_rc_2")
    requests.deferred("unknown", "gw_rc_3")
    assert "gw_rc_3" not in requests
    assert requests.refused("gw_rc_2", None) == (True, "mine")


def test_a_flood_of_requests_is_bounded() -> None:
    """A link that answers nothing does not fill the memory; a new link begins with none."""
    requests = ClientRequests()
    for number in range(MAX_UNANSWERED + 1):
        requests.sent(f"gw_cu_{number}", FAST)
    assert "gw_cu_0" not in requests
    assert "gw_cu_1" in requests
    requests.forget_all()
    assert requests.configured() is None
