"""One response at a time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.realtime import Event
from core.responses import ResponseSequencer, Why


def create(number: int, **fields: Any) -> Event:
    """Return the create of that number."""
    event: Event = {"type": "response.create", "event_id": f"gw_rc_{number}"}
    return {**event, "response": fields} if fields else event


def running(why: Why = "client") -> ResponseSequencer:
    """Return a sequencer with a response of ours running."""
    sequencer = ResponseSequencer()
    sequencer.request(why)
    sequencer.created("r1")
    return sequencer


def test_a_response_is_asked_for_at_once_when_none_runs() -> None:
    """The create goes out with its fields, and the sequencer knows who wanted it."""
    sequencer = ResponseSequencer()
    assert sequencer.asked_for is None
    assert sequencer.asked_fields == {}
    assert sequencer.request("greeting", {"instructions": "Hi"}) == create(1, instructions="Hi")
    assert (sequencer.state, sequencer.asked_for, sequencer.is_busy) == ("requested", "greeting", True)
    assert sequencer.asked_fields == {"instructions": "Hi"}
    assert sequencer.next_event_id == "gw_rc_1"


def test_further_wishes_wait_for_the_end_and_become_one() -> None:
    """Two tool results while a response runs lead to one create, after its end."""
    sequencer = running()
    assert sequencer.request("tools") is None
    assert sequencer.request("tools") is None
    assert sequencer.next_event_id == "gw_rc_2"
    assert sequencer.done("r1") == create(2)
    sequencer.created("r2")
    assert sequencer.done("r2") is None
    assert not sequencer.is_busy


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [("client", "tools", "client"), ("tools", "client", "client"), ("goodbye", "client", "goodbye")],
)
def test_a_wish_with_fields_is_not_lost_to_one_without(first: Why, second: Why, kept: Why) -> None:
    """One response serves both wishes; the client's own fields, and a goodbye, need theirs."""
    sequencer = running()
    sequencer.request(first)
    sequencer.request(second)
    sequencer.done("r1")
    assert sequencer.asked_for == kept


def test_a_response_the_server_began_counts_too() -> None:
    """Voice activity detection begins responses by itself; nothing is asked for meanwhile."""
    sequencer = ResponseSequencer()
    sequencer.created("r1")
    assert sequencer.request("client") is None
    assert sequencer.asked_for is None
    assert sequencer.done("r1") == create(1)


def test_the_end_of_another_response_frees_nothing() -> None:
    """An out-of-band response may end while ours runs."""
    sequencer = running()
    assert sequencer.done("other") is None
    assert sequencer.is_busy


def test_cancel_then_create_is_sent_after_the_end() -> None:
    """What is asked for behind a cancel goes out when the cancelled response is done."""
    sequencer = running()
    assert sequencer.cancel()
    assert sequencer.request("client") is None
    assert sequencer.done("r1") == create(2)


def test_a_cancel_before_the_response_began() -> None:
    """A response cancelled between create and created is waited for."""
    sequencer = ResponseSequencer()
    sequencer.request("client")
    assert sequencer.cancel()
    sequencer.created("r1")
    assert sequencer.state == "cancelling"
    assert sequencer.done("r1") is None
    assert sequencer.state == "free"


def test_nothing_to_cancel() -> None:
    """A cancel without a response changes nothing, nor does its error."""
    sequencer = ResponseSequencer()
    assert not sequencer.cancel()
    assert sequencer.not_active() is None
    assert sequencer.state == "free"


def test_a_cancel_that_came_too_late_frees_the_way() -> None:
    """When nothing was active any more, the waiting create goes out."""
    sequencer = running()
    sequencer.cancel()
    sequencer.request("client")
    assert sequencer.not_active() == create(2)


def test_a_create_that_collides_waits_for_the_others_end() -> None:
    """A create refused because the server began a response is sent once more after that one."""
    sequencer = ResponseSequencer()
    sequencer.request("tools", {"metadata": {}})
    sequencer.created("r_vad")
    assert sequencer.collided("gw_rc_1")
    assert sequencer.asked_for is None
    assert sequencer.done("r_vad") == create(2, metadata={})


def test_a_collision_heard_of_before_the_other_response() -> None:
    """The order of error and created does not matter, nor whether the error names the create."""
    sequencer = ResponseSequencer()
    sequencer.request("tools")
    assert sequencer.collided(None)
    assert sequencer.state == "active"
    sequencer.created("r_vad")
    assert sequencer.done("r_vad") == create(2)


def test_the_servers_own_answer_that_collided_is_asked_for() -> None:
    """Speech the server could not answer while a response ran is answered after it."""
    sequencer = running()
    assert sequencer.collided(None)
    assert sequencer.asked_for == "client"
    assert sequencer.done("r1") == create(2)
    assert not ResponseSequencer().collided(None)


def test_a_collision_does_not_take_the_place_of_a_waiting_wish() -> None:
    """Still only one create waits."""
    sequencer = running()
    sequencer.cancel()
    sequencer.request("client", {"metadata": {"a": "b"}})
    assert sequencer.collided(None)
    assert sequencer.state == "cancelling"
    assert sequencer.done("r1") == create(2, metadata={"a": "b"})


def test_a_create_refused_for_good_makes_room_for_the_next() -> None:
    """A bad field ends that wish; what waited behind it is sent."""
    sequencer = ResponseSequencer()
    sequencer.request("client", {"metadata": 5})
    assert sequencer.request("tools") is None
    assert sequencer.refused("gw_rc_1") == create(2)
    assert sequencer.refused("gw_rc_2") is None
    assert not sequencer.is_busy


def test_a_refusal_beside_a_running_response() -> None:
    """The response the server began meanwhile goes on, and still blocks."""
    sequencer = ResponseSequencer()
    sequencer.request("client")
    sequencer.created("r_vad")
    assert sequencer.refused("gw_rc_1") is None
    assert sequencer.is_busy


@pytest.mark.parametrize("event_id", ["gw_rc_0", "gw_x_1", ""])
def test_errors_about_other_events_free_nothing(event_id: str) -> None:
    """Only the latest create of ours is meant by its id."""
    sequencer = ResponseSequencer()
    assert sequencer.refused(event_id) is None
    sequencer.request("client")
    assert sequencer.refused(event_id) is None
    assert sequencer.state == "requested"


FACTS = st.sampled_from(["request", "cancel", "created", "done", "other done", "collided", "not active", "refused"])


@given(st.lists(FACTS, max_size=40))
def test_two_creates_are_never_in_flight(facts: list[str]) -> None:
    """Whatever happens, a create goes out only when nothing of ours is unanswered."""
    sequencer, number = ResponseSequencer(), 0
    for fact in facts:
        was_busy, sent = sequencer.is_busy, None
        match fact:
            case "request":
                sent = sequencer.request("tools")
                assert not (was_busy and sent)
            case "cancel":
                sequencer.cancel()
            case "created":
                number += 1
                sequencer.created(f"r{number}")
            case "done":
                sent = sequencer.done(sequencer.active_id or "r0")
            case "other done":
                assert sequencer.active_id is None or sequencer.done("other") is None
            case "collided":
                assert sequencer.collided(None) == was_busy
            case "not active":
                sent = sequencer.not_active()
            case "refused":
                sent = sequencer.refused(sequencer.next_event_id)
        if sent is not None:
            assert sequencer.state == "requested"
            assert sequencer.active_id is None
