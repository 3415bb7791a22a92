"""A lost link is replaced, and the talk goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.conversation import STALL_S
from core.records import Turn
from core.recovery import RETRY_DELAYS_S
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


@pytest.mark.parametrize("cause", ["closed", "timeout", "unreachable", "stalled", "error", "refused"])
def test_a_lost_link_is_replaced_and_the_talk_goes_on(cause: str) -> None:
    """The client is told, the same configuration is sent, and what was said is replayed in order as text."""
    talk = Dialogue().live().asks("u1", "Hi?").answers("r1", "i1", "Hello.", 500)
    talk.later(2)
    first = session_sent(talk)
    talk.lost(cause).gives("close upstream", "note upstream lost", NOTICE, "open 2 after 0.4 s")
    assert not talk.session.audio_is_open
    talk.opened().gives("model: session.update gw_cfg_2")
    assert session_sent(talk) == first
    talk.model("session.created", session={}).gives()
    talk.model("session.updated", session={}).gives(
        "model: user 'Hi?'", "model: assistant 'Hello.'", "client: notice reconnected"
    )
    assert talk.conversation.reconnects == 1


def test_the_replay_has_tool_calls_in_pairs_and_our_own_ids() -> None:
    """A resumed conversation begins where it ended: each item once, under an id no client can use."""
    about = {"name": "stock", "call_id": "c1", "arguments": "{}"}
    history = [
        Turn("u1", 0, "user", "Boots?"),
        Turn("c1", 1, "tool", "3 pairs", metadata=about),
        Turn("i1", 2, "assistant", "Three."),
    ]
    talk = Dialogue(history=history, next_position=3, resumed=True)
    talk.begins()
    talk.opened()
    step = talk.model("session.updated", session={})
    step.gives(
        "client: session.updated",
        "model: user 'Boots?'",
        "model: function_call c1",
        "model: function_call_output c1",
        "model: assistant 'Three.'",
    )
    ids = [event["item"]["id"] for event in step.sent]
    assert len(set(ids)) == 4
    assert all(item_id.startswith("gw_") and len(item_id) <= 32 for item_id in ids)
    talk.asks("u2")
    assert talk.model("@completed", item_id="u2", transcript="Yes").told[-1] == "save 3 user 'Yes' complete"


def test_an_answer_still_playing_at_the_loss_is_not_forgotten() -> None:
    """The fresh session knows what the listener is hearing, although it is not stored yet."""
    talk = Dialogue().live().asks("u1", "Hi?").answers("r1", "i1", "one two three", 5000)
    talk.lost()
    talk.opened()
    talk.model("session.updated", session={}).gives(
        "model: user 'Hi?'", "model: assistant 'one two three'", "client: notice reconnected"
    )
    talk.later(6).gives("save 1 assistant 'one two three' complete 5000/5000 ms")


def test_a_cut_on_a_lost_link_is_stored_and_sent_nowhere() -> None:
    """The model that would have to forget is gone."""
    talk = Dialogue().live().answers("r1", "i1", "one two three four", 2000)
    talk.later(1.15)
    talk.model(STARTED, item_id="u1")
    talk.lost()
    talk.later(0.8).gives("save 0 assistant 'one two' interrupted 1000/2000 ms")


def test_an_answer_the_lost_link_owed_is_asked_for_again() -> None:
    """A question that was written down is answered by the fresh session."""
    talk = Dialogue().live().asks("u1", "Hi?")
    talk.lost()
    talk.opened()
    talk.model("session.updated").gives(
        "model: user 'Hi?'", "client: notice reconnected", "model: response.create gw_rc_1"
    )


def test_a_question_lost_with_the_link_is_asked_for() -> None:
    """What was not written down cannot be replayed: the agent says that it did not hear it."""
    talk = Dialogue().live().asks("u1")
    talk.lost()
    talk.opened()
    step = talk.model("session.updated")
    assert "again" in step.sent[-1]["response"]["instructions"]
    talk.later(19).gives()
    talk.later(1).gives(
        "save 0 user '[inaudible]' failed", "close upstream", "client: notice reconnecting", "open 3 after 1 s"
    )


def test_a_broken_off_answer_is_given_anew() -> None:
    """What was heard of it is stored; the response is asked for again."""
    talk = Dialogue().live().asks("u1", "Hi?").begins_answer("r1", "i1").says("r1", "i1", "Well, ", 500)
    talk.lost().gives("close upstream", "save 1 assistant 'Well,' interrupted 500/500 ms", NOTICE, "open 2 after 0.4 s")
    assert talk.connected().conversation.exchange.sequencer.asked_for == "resume"


def test_a_tool_that_ran_when_the_link_was_lost() -> None:
    """Its result has no call to belong to any more and is dropped; the answer is still owed."""
    columns = {"tools": [{"name": "stock", "url": "https://shop.example"}]}
    talk = Dialogue({"agent": columns}).live().asks("u1", "Boots?").begins_answer("r1", "i1")
    talk.calls("r1", "c1", "stock")
    talk.ends_answer("r1")
    talk.lost()
    talk.tool("c1").gives()
    talk.connected()
    talk.tool("c1").gives()
    assert talk.conversation.exchange.sequencer.asked_for == "resume"


def test_nothing_is_asked_for_when_nothing_is_owed() -> None:
    """With push to talk a commit alone is no question; nor does the client's pause make one."""
    talk = Dialogue({"agent": {"turn_detection": {"type": "none"}}}).live()
    talk.model("input_audio_buffer.committed", item_id="u1")
    talk.model("@completed", item_id="u1", transcript="Hi")
    talk.lost()
    assert not talk.connected().conversation.exchange.sequencer.is_busy


def test_what_an_old_link_still_says_is_dropped() -> None:
    """Events, audio and the end of a generation that was given up change nothing."""
    talk = Dialogue().live().begins_answer("r1", "i1")
    talk.lost()
    talk.connected()
    talk.model("response.done", generation=1, response={"id": "r1"}).gives()
    talk.model("response.output_audio.delta", generation=1, response_id="r1", item_id="i1", ms=20).gives()
    audio = {"response_id": "r1", "item_id": "i1", "delta": "AAAA"}
    talk.model("response.output_audio.delta", generation=1, **audio).gives()
    talk.lost(generation=1).gives()


def test_the_tries_are_counted_and_end() -> None:
    """Four retries with growing waits, each told; then the session ends with 4502."""
    talk = Dialogue()
    talk.begins()
    for number, delay_s in enumerate(RETRY_DELAYS_S, 2):
        talk.lost("unreachable").gives("close upstream", NOTICE, f"open {number} after {delay_s:g} s")
    talk.lost("unreachable").gives("close upstream", *END)


def test_a_first_link_that_took_two_tries_is_told_as_found() -> None:
    """A client that heard of trouble hears of its end, and meets the session once."""
    talk = Dialogue()
    talk.begins()
    talk.opened()
    talk.model("session.created", session={}).gives("client: session.created", "client: conversation.created")
    talk.lost()
    talk.opened()
    talk.model("session.created", session={}).gives()
    talk.model("session.updated", session={}).gives("client: session.updated", "client: notice reconnected")


def test_a_stable_link_earns_fresh_tries() -> None:
    """A conversation with a loss every minute is not given up after the fourth."""
    talk = Dialogue({"idle_s": 9000.0}).live()
    for _ in range(8):
        talk.later(60)
        assert "open" in talk.lost().told[-1]
        talk.connected()


@pytest.mark.parametrize("code", ["insufficient_quota", "model_not_found", "billing_hard_limit_reached"])
def test_an_error_no_retry_mends_ends_it(code: str) -> None:
    """As an event, as the end of a response, and as the reason of a close."""
    talk = Dialogue().live()
    talk.model("error", error={"code": code}).gives("close upstream", *END)
    talk = Dialogue().live().begins_answer("r1", "i1")
    talk.ends_answer("r1", "failed", status_details={"error": {"code": code}}).gives(
        "client: response.done", "close upstream", *END
    )
    talk = Dialogue().live()
    talk.lost("closed", code=code).gives("close upstream", *END)


def test_a_bad_key_is_refreshed_once() -> None:
    """A key that was rotated is mended without a wait; a second refusal ends it."""
    talk = Dialogue()
    talk.begins()
    talk.opened()
    talk.model("error", error={"code": "invalid_api_key"}).gives("close upstream", NOTICE, "open 2 with a fresh key")
    talk.lost("refused", status=401).gives("close upstream", *END)


def test_a_key_refused_within_a_response_does_not_end_the_next_session() -> None:
    """What mended one failure is not held against what follows."""
    talk = Dialogue().live().begins_answer("r1", "i1")
    details = {"error": {"code": "insufficient_permissions"}}
    assert talk.ends_answer("r1", "failed", status_details=details).told[-1] == "open 2 with a fresh key"
    talk.connected().begins_answer("r2", "i2")
    talk.ends_answer("r2").gives("client: response.done")


def test_an_expired_session_is_followed_without_a_word() -> None:
    """The 60 minutes are over: a new session at once, no notice, the talk goes on."""
    talk = Dialogue({"max_session_s": 9000.0}).live()
    talk.model("error", error={"code": "session_expired"}).gives("close upstream", "open 2")
    talk.opened()
    talk.model("session.updated").gives()


def test_a_session_that_expires_in_an_answer_is_told() -> None:
    """The end of an answer that will not come must not be awaited: the client hears that the link is new."""
    talk = Dialogue().live().asks("u1", "Hello?").begins_answer("r1", "a1")
    lost = talk.model("error", error={"code": "session_expired"})
    assert "client: notice reconnecting" in lost.told


@pytest.mark.parametrize("expires_in", [3600, None])
def test_a_session_is_changed_at_a_pause_before_its_limit(expires_in: int | None) -> None:
    """Not while somebody speaks, an answer is heard or a tool runs; the client notices nothing."""
    talk = Dialogue({"max_session_s": 9000.0, "idle_s": 9000.0, "wall_offset_s": 500.0})
    talk.live(**({} if expires_in is None else {"expires_at": talk.now + 500.0 + expires_in}))
    talk.later(3290)
    talk.model(STARTED, item_id="u1")
    talk.later(20).gives()
    talk.model("input_audio_buffer.speech_stopped", item_id="u1")
    talk.answers("r1", "i1", "one two three four five", 5000)
    talk.later(4).gives()
    talk.later(3).gives("save 0 assistant 'one two three four five' complete 5000/5000 ms", "close upstream", "open 2")
    talk.opened()
    talk.model("session.updated").gives("model: assistant 'one two three four five'")


def test_a_response_from_which_nothing_comes_is_lost() -> None:
    """After 20 s of silence the link is replaced; as long as something comes it is not."""
    talk = Dialogue().live().begins_answer("r1", "i1")
    talk.later(STALL_S - 1)
    talk.says("r1", "i1", "Well, ", 500)
    talk.later(STALL_S - 1).gives()
    talk.later(2)
    assert talk.generation == 2
