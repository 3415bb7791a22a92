"""States, configuration, the client's own events and the agreed ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core import errors
from core.deadlines import CONFIGURE_S, OPEN_S
from tests.dialogue import Dialogue

STARTED = "input_audio_buffer.speech_started"
NOTICE = "client: notice reconnecting"
END = ["close upstream", "close 4502 upstream"]


def session_sent(talk: Dialogue) -> dict[str, Any]:
    """Return the session the last link was configured with."""
    updates = [event for event in map(json.loads, frames(talk)) if event["type"] == "session.update"]
    session: dict[str, Any] = updates[-1]["session"]
    return session


def frames(talk: Dialogue) -> list[bytes]:
    """Return every frame sent to the model."""
    return [command.frame for command in talk.all if type(command).__name__ == "SendUpstream"]  # type: ignore[union-attr]


# ------------------------------------------------------------------ the way to live


def test_a_conversation_is_configured_before_anything_flows() -> None:
    """Open, configure, wait for the confirmation; then the client may talk (reference, section 13, P1)."""
    talk = Dialogue()
    assert talk.session.next_deadline is None
    talk.begins().gives("open 1")
    talk.opened().gives("model: session.update gw_cfg_1")
    talk.model("session.created", session={"id": "s"}).gives("client: session.created", "client: conversation.created")
    assert not talk.session.audio_is_open
    talk.model("rate_limits.updated").gives()
    talk.model("session.updated", session={"id": "s"}).gives("client: session.updated")
    assert talk.session.audio_is_open
    talk.model("rate_limits.updated").gives("client: rate_limits.updated")
    talk.opened().gives()


def test_no_audio_is_heard_before_the_configuration_holds() -> None:
    """A service that speaks too early speaks as somebody else."""
    talk = Dialogue()
    talk.begins()
    talk.opened()
    talk.model("response.output_audio.delta", response_id="r1", item_id="i1", ms=20).gives()


def test_an_agent_that_greets_speaks_first() -> None:
    """The greeting is asked for once, when the session is ready; an agent without one waits."""
    talk = Dialogue({"greets": True, "agent": {"greeting": "Hello!"}})
    talk.begins()
    talk.opened()
    talk.model("session.updated").gives("client: session.updated", "model: response.create gw_rc_1")
    assert talk.connected().conversation.is_live
    silent = Dialogue({"greets": True})
    silent.begins()
    silent.opened()
    silent.model("session.updated").gives("client: session.updated")


def test_a_refused_configuration_is_tried_reduced_and_then_given_up() -> None:
    """An agent with a bad voice still talks; one whose instructions are refused does not."""
    talk = Dialogue({"agent": {"instructions": "Sell."}})
    talk.begins()
    talk.opened()
    refused = {"code": "invalid_value", "param": "session.audio.output.voice"}
    talk.model("error", error=refused).gives("note session configuration refused", "model: session.update gw_cfg_1r")
    assert set(session_sent(talk)) == {"type", "instructions", "tools", "tool_choice", "audio"}
    talk.model("error", error=refused).gives(*END)
    talk.later(1000).gives()


def test_a_link_that_is_lost_keeps_the_reduced_configuration() -> None:
    """What was refused once is not tried again."""
    talk = Dialogue()
    talk.begins()
    talk.opened()
    talk.model("error", error={"code": "x"})
    talk.model("session.updated")
    talk.lost()
    talk.opened()
    assert "truncation" not in session_sent(talk)


@pytest.mark.parametrize(("wait_s", "is_open"), [(OPEN_S, False), (CONFIGURE_S, True)])
def test_a_link_that_does_not_come_is_tried_again(wait_s: float, is_open: bool) -> None:
    """Neither the opening nor the configuration may take for ever."""
    talk = Dialogue()
    talk.begins()
    if is_open:
        talk.opened()
    talk.later(wait_s - 0.1).gives()
    talk.later(0.2).gives("close upstream", NOTICE, "open 2 after 0.4 s")


# ------------------------------------------------------------------ the client's own events


def test_a_change_of_the_session_outlives_the_link() -> None:
    """It is sent under an id of ours, and laid over the configuration once the API confirmed it."""
    talk = Dialogue().live()
    fast = {"type": "realtime", "audio": {"output": {"speed": 1.2}}}
    step = talk.client("session.update", event_id="mine", session=fast)
    assert step.sent[0]["session"] == fast
    assert step.sent[0]["event_id"].startswith("gw_cu_")
    talk.lost()
    talk.connected()
    assert session_sent(talk)["audio"]["output"]["speed"] == 1.0
    talk.client("session.update", session=fast)
    talk.model("session.updated", session={}).gives("client: session.updated")
    talk.model("session.updated", session={}).gives("client: session.updated")
    talk.lost()
    talk.connected()
    assert session_sent(talk)["audio"]["output"]["speed"] == 1.2


@pytest.mark.parametrize("names_it", [True, False])
def test_a_refused_change_is_told_and_forgotten(names_it: bool) -> None:
    """The client hears of it under its own id, whether or not the API says which event it means."""
    talk = Dialogue().live()
    step = talk.client("session.update", event_id="mine", session={"audio": {"output": {"speed": 1.2}}})
    own_id = step.sent[0]["event_id"] if names_it else None
    told = talk.model("error", error={"code": "x", "param": "session.audio.output.speed", "event_id": own_id})
    assert told.events[0]["error"]["event_id"] == "mine"
    talk.model("session.updated", session={})
    talk.lost()
    talk.connected()
    assert session_sent(talk)["audio"]["output"]["speed"] == 1.0


def test_turn_detection_is_followed_as_the_client_changes_it() -> None:
    """A page that switches to push to talk is not cut by its own noise."""
    talk = Dialogue().live()
    talk.client("session.update", session={"audio": {"input": {"turn_detection": None}}})
    talk.model("session.updated", session={"audio": {"input": {"turn_detection": None}}})
    talk.model(STARTED, item_id="u1").gives(f"client: {STARTED}")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ({"code": "response_cancel_not_active", "event_id": "mine"}, []),
        ({"code": "item_truncate_invalid_item_id", "event_id": "mine"}, []),
        ({"code": "invalid_value", "event_id": "gw_x_7"}, []),
        ({"code": "invalid_value", "message": "Audio content of 3700ms is already shorter than 3760ms"}, []),
        (
            {"code": "input_audio_buffer_commit_empty", "event_id": "mine"},
            ["client: error input_audio_buffer_commit_empty"],
        ),
        ({"type": "server_error"}, ["client: error server_error"]),
        ("nonsense", ["client: error unknown"]),
    ],
)
def test_errors_reach_the_client_when_they_are_its_own(error: Any, told: list[str]) -> None:
    """What was true already, and what this server asked for by itself, is no news for the client."""
    Dialogue().live().model("error", error=error).gives(*told)


def test_a_refused_create_of_ours_makes_room() -> None:
    """The next wish is not stuck behind it."""
    talk = Dialogue({"greets": True, "agent": {"greeting": "Hello!"}}).live()
    talk.model("error", error={"code": "invalid_value", "event_id": "gw_rc_1"}).gives("note upstream refused an event")
    talk.client("response.create").gives("model: response.create gw_rc_2")


def test_a_create_waiting_behind_a_cancel_that_came_too_late() -> None:
    """The error about the cancel is what lets the create go."""
    talk = Dialogue().live()
    talk.client("response.create")
    talk.client("response.cancel")
    talk.client("response.create").gives()
    talk.model("error", error={"code": "response_cancel_not_active"}).gives("model: response.create gw_rc_2")


def test_a_collision_with_nothing_is_told() -> None:
    """An error that cannot be ours to mend is the client's to know."""
    error = {"code": "conversation_already_has_active_response"}
    Dialogue().live().model("error", error=error).gives("client: error conversation_already_has_active_response")


def test_the_clients_report_makes_the_model_forget() -> None:
    """A truncation by the client goes upstream and is stored; one of an unknown item is the client's error."""
    talk = Dialogue().live().answers("r1", "i1", "one two three four", 2000)
    talk.later(1.15)
    report = {"content_index": 0, "audio_end_ms": 1000}
    talk.client("conversation.item.truncate", item_id="i1", **report).gives(
        "save 0 assistant 'one two' interrupted 1000/2000 ms", "model: truncate i1 at 1000 ms"
    )
    talk.client("conversation.item.truncate", item_id="x", **report).gives(
        "client: error item_truncate_invalid_item_id"
    )


def test_a_client_asks_for_a_response_while_one_runs() -> None:
    """It gets OpenAI's own error, and upstream hears nothing of it."""
    talk = Dialogue().live().begins_answer("r1", "i1")
    talk.client("response.create").gives("client: error conversation_already_has_active_response")


def test_a_create_that_collides_is_sent_after_the_other_response() -> None:
    """The client is told nothing; it gets its response a little later."""
    talk = Dialogue().live()
    talk.client("response.create")
    talk.model("response.created", response={"id": "r_vad"})
    talk.model("error", error={"code": "conversation_already_has_active_response", "event_id": "gw_rc_1"}).gives()
    talk.ends_answer("r_vad").gives("client: response.done", "model: response.create gw_rc_2")


# ------------------------------------------------------------------ the agreed ends


def test_the_longest_time() -> None:
    """The client is told a minute before, and the session ends with everything stored."""
    talk = Dialogue({"max_session_s": 600.0, "idle_s": 9000.0}).live().asks("u1", "Hi?")
    talk.later(540).gives("client: notice time_limit_soon")
    talk.answers("r1", "i1", "one two three four", 90_000)
    talk.later(59.65)
    talk.model(STARTED, item_id="u2")
    talk.later(0.35).gives(
        "save 1 assistant 'one two' interrupted 59500/90000 ms",
        "progress 2 time_limit",
        "close upstream",
        "close 4008 time_limit",
    )
    assert talk.session.next_deadline is None


def test_silence_ends_a_session_and_speech_does_not() -> None:
    """Speech of either side and events of the client count as life; canonical audio and cut silence do not."""
    talk = Dialogue({"idle_s": 60.0}).live()
    talk.later(50)
    talk.client("input_audio_buffer.clear")
    talk.later(50)
    talk.model(STARTED, item_id="u1")
    talk.model("input_audio_buffer.speech_stopped", item_id="u1")
    talk.answers("r1", "i1", "long", 90_000)
    talk.later(140)
    talk.speaks()
    talk.client("input_audio_buffer.append", audio="AAAA", event_id="x")
    assert talk.conversation.is_live
    assert talk.later(20).told[-1] == "close 4008 idle"


def test_the_budget_is_announced_and_then_ends_the_talk_politely() -> None:
    """The answer that spent it is heard to its end."""
    usage = {"output_token_details": {"audio_tokens": 7000}}
    talk = Dialogue({"budget_usd": 1.0, "spent_usd": 0.4}).live()
    talk.begins_answer("r1", "i1")
    talk.ends_answer("r1", usage=usage).gives("client: response.done", "client: notice budget_soon")
    talk.begins_answer("r2", "i2").says("r2", "i2", "Well.", 2000)
    talk.ends_answer("r2", usage=usage).gives("client: response.done")
    talk.later(2.5).gives("save 1 assistant 'Well.' complete 2000/2000 ms")
    talk.later(0.1).gives("close upstream", "close 4029 budget")


def test_an_agent_that_says_goodbye_ends_the_talk() -> None:
    """The end comes when the goodbye was heard, and with it every other deadline."""
    talk = Dialogue({"agent": {"tools": [{"builtin": "end_call"}]}, "max_session_s": 1.8, "idle_s": 1.8}).live()
    talk.begins_answer("r1", "i1").says("r1", "i1", "Bye!", 1000)
    talk.calls("r1", "c1", "end_call")
    talk.ends_answer("r1")
    talk.later(1.5)
    assert talk.later(0.1).told[-1] == "close 1000 agent_ended"
    talk.later(9).gives()


def test_two_ends_at_the_same_time_are_one() -> None:
    """The first deadline decides; those that are over with it do nothing any more."""
    talk = Dialogue({"max_session_s": 60.0, "idle_s": 60.0}).live()
    assert [told for told in talk.later(60).told if told.startswith("close 4")] == ["close 4008 time_limit"]


def test_a_client_that_leaves_loses_nothing() -> None:
    """What was said until then is stored, what nobody wrote down as inaudible; the second end does nothing."""
    talk = Dialogue().live().asks("u1").answers("r1", "i1", "one two three four", 2000)
    talk.later(1.15)
    told = [
        "save 1 assistant 'one two' interrupted 1000/2000 ms",
        "save 0 user '[inaudible]' failed",
        "progress 2 client_left",
        "close upstream",
        "close 1000 client_left",
    ]
    commands = talk.session.client_left(errors.CLIENT_LEFT, talk.now)
    talk._fact("the client left", commands).gives(*told)
    assert talk.session.client_left(errors.CLIENT_LEFT, talk.now) == []


def test_a_conversation_that_never_began_can_end() -> None:
    """A client that leaves before the first link leaves nothing behind."""
    talk = Dialogue()
    talk.lost().gives()
    talk._fact("left", talk.session.client_left(errors.PAGE_CLOSED, talk.now)).gives(
        "close upstream", "close 1001 client_left"
    )
