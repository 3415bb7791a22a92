"""What is said, by both sides: turns, failures, goodbyes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.exchange import GOODBYE_INSTRUCTIONS
from core.realtime import Event
from tests.dialogue import Dialogue

TOOLS = {"tools": [{"name": "stock", "url": "https://shop.example"}, {"builtin": "end_call"}]}
TEXT = "one two three four five"
STARTED = "input_audio_buffer.speech_started"


def talking(seconds: int = 2, **fields: Any) -> Dialogue:
    """Return a dialogue in which the agent's answer, sent at once, is being heard."""
    talk = Dialogue(fields).live().asks("u1", "Hi?")
    return talk.answers("r1", "i1", TEXT, seconds * 1000)


# ------------------------------------------------------------------ one turn


def test_a_turn_is_forwarded_and_stored_in_order() -> None:
    """The person speaks, the model answers, the client sees everything, and both turns are stored as they were."""
    talk = Dialogue().live()
    talk.model(STARTED, item_id="u1").gives(f"client: {STARTED}", "drop audio")
    talk.model("input_audio_buffer.speech_stopped", item_id="u1").gives("client: input_audio_buffer.speech_stopped")
    talk.model("input_audio_buffer.committed", item_id="u1").gives("client: input_audio_buffer.committed")
    item = {"id": "u1", "type": "message", "role": "user", "content": [{"type": "input_audio"}]}
    talk.model("conversation.item.added", item=item).gives("client: conversation.item.added")
    talk.model("conversation.item.done", item=item).gives("client: conversation.item.done")
    talk.begins_answer("r1", "i1")
    talk.model("response.output_audio.delta", response_id="r1", item_id="i1", ms=1000).gives("client: audio of i1")
    ids = {"response_id": "r1", "item_id": "i1"}
    delta = "response.output_audio_transcript.delta"
    talk.model(delta, delta="Hello.", **ids).gives(f"client: {delta}")
    talk.ends_answer("r1").gives("client: response.done", "progress 0 goes on")
    talk.model("@completed", item_id="u1", transcript=" Hi? ", usage={"type": "duration", "seconds": 60}).gives(
        "client: conversation.item.input_audio_transcription.completed", "save 0 user 'Hi?' complete"
    )
    talk.later(1.5).gives("save 1 assistant 'Hello.' complete 1000/1000 ms")
    assert talk.conversation.exchange.usage.transcription_s == 60
    talk.later(200).gives()


def test_the_first_sound_is_timed_from_the_end_of_the_speech() -> None:
    """The wait for the first answer is measured once, from the end of the person's turn to the first sound."""
    talk = Dialogue().live()
    assert talk.conversation.exchange.first_audio_s is None
    talk.asks("u1", "Hi?").begins_answer("r1", "i1").later(0.64)
    talk.says("r1", "i1", TEXT, 1000)
    assert talk.conversation.exchange.first_audio_s == pytest.approx(0.64)
    talk.ends_answer("r1")
    talk.asks("u2", "And?").begins_answer("r2", "i2").later(3)
    talk.says("r2", "i2", TEXT, 1000)
    assert talk.conversation.exchange.first_audio_s == pytest.approx(0.64)


def test_a_transcription_that_comes_after_the_answer_lands_before_it() -> None:
    """Turns are stored in the order of the conversation, not of arrival."""
    talk = Dialogue().live().asks("u1").answers("r1", "i1", "Hello.", 500)
    talk.later(1).gives("save 1 assistant 'Hello.' complete 500/500 ms")
    completed = "client: conversation.item.input_audio_transcription.completed"
    talk.model("@completed", item_id="u1", transcript="Hi?").gives(completed, "save 0 user 'Hi?' complete")
    talk.model("@completed", item_id="u1", transcript="Hi?").gives(completed)


@pytest.mark.parametrize(
    ("event", "fields"),
    [("@failed", {"error": {"code": "x"}}), ("@completed", {"transcript": " "}), ("@completed", {})],
)
def test_a_turn_nobody_could_write_down(event: str, fields: Event) -> None:
    """A failed or empty transcription is stored as inaudible."""
    step = Dialogue().live().asks("u1").model(event, item_id="u1", **fields)
    assert step.told[1:] == ["save 0 user '[inaudible]' failed"]


def test_a_transcription_that_never_comes() -> None:
    """After the wait the turn is stored as inaudible; a later text is shown and not stored."""
    talk = Dialogue().live().asks("u1")
    talk.later(19.9).gives()
    talk.later(0.2).gives("save 0 user '[inaudible]' failed")
    completed = "client: conversation.item.input_audio_transcription.completed"
    talk.model("@completed", item_id="u1", transcript="Hi?").gives(completed)


def test_typed_text_is_stored_as_it_enters_the_conversation() -> None:
    """A typed message has its text from the beginning; announced twice it is stored once."""
    talk = Dialogue().live()
    parts: list[Any] = [{"type": "input_text", "text": "Hi"}, {"type": "input_audio"}, "odd"]
    item = {"id": "u1", "type": "message", "role": "user", "content": parts}
    saved = "save 0 user 'Hi' complete"
    talk.model("conversation.item.added", item=item).gives("client: conversation.item.added", saved)
    talk.model("conversation.item.created", item=item).gives("client: conversation.item.created")
    talk.model("conversation.item.added", item={**item, "id": "u2", "content": None}).gives(
        "client: conversation.item.added"
    )


@pytest.mark.parametrize("is_early", [True, False])
def test_an_answers_item_may_be_announced_in_either_order(is_early: bool) -> None:
    """`conversation.item.added` before or after `response.output_item.added` leads to the same one turn."""
    talk = Dialogue().live()
    item = {"id": "i1", "type": "message", "role": "assistant", "content": []}
    events: list[tuple[str, Event]] = [
        ("conversation.item.added", {"item": item}),
        ("response.output_item.added", {"response_id": "r1", "item": item}),
    ]
    if not is_early:
        talk.model("response.created", response={"id": "r1"})
        events.reverse()
    for event, fields in events:
        talk.model(event, **fields).gives(f"client: {event}")
    if is_early:
        talk.model("response.created", response={"id": "r1"})
    talk.says("r1", "i1", "Hello.", 500).ends_answer("r1")
    talk.later(2).gives("save 0 assistant 'Hello.' complete 500/500 ms")


def test_text_only_responses_are_stored_at_their_end() -> None:
    """An answer in text has been read when it is done; text is replaced by its final form."""
    talk = Dialogue().live()
    talk.client("response.create", response={"output_modalities": ["text"]}).gives("model: response.create gw_rc_1")
    talk.begins_answer("r1", "i1", modality="text")
    ids = {"response_id": "r1", "item_id": "i1"}
    talk.model("response.output_text.delta", delta="Hel", **ids).gives("client: response.output_text.delta")
    talk.model("response.output_text.done", text="Hello.", **ids).gives("client: response.output_text.done")
    talk.ends_answer("r1").gives("client: response.done", "save 0 assistant 'Hello.' complete")


def test_nothing_the_agent_does_for_itself_is_shown() -> None:
    """Items of ours, of the system and of tools are swallowed."""
    talk = Dialogue({"agent": TOOLS}).live()
    for item in (
        {"id": "gw_h_1", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "old"}]},
        {"id": "s1", "type": "message", "role": "system", "content": []},
        {"id": "f1", "type": "function_call", "name": "stock"},
        None,
    ):
        talk.model("conversation.item.added", item=item).gives()
        talk.model("conversation.item.done", item=item).gives()
    talk.model("response.output_item.added", response_id="r1", item={"type": "function_call"}).gives()
    talk.model("response.function_call_arguments.delta", delta="{").gives()


# ------------------------------------------------------------------ failures and goodbyes


def test_a_failed_response_is_tried_once_more() -> None:
    """With the fields it had; a second failure is told."""
    talk = Dialogue({"greets": True, "agent": {"greeting": "Hello!"}}).live()
    talk.model("response.created", response={"id": "r1"})
    failed = {"status_details": {"error": {"code": "server_error"}}}
    step = talk.ends_answer("r1", "failed", **failed)
    assert step.told[-1] == "model: response.create gw_rc_2"
    assert "Hello!" in step.sent[-1]["response"]["instructions"]
    talk.model("response.created", response={"id": "r2"})
    talk.ends_answer("r2", "failed", **failed).gives("client: response.done", "client: error server_error")
    talk.later(1).gives()


def test_a_success_in_between_earns_a_new_try() -> None:
    """Failures count when they follow each other; one without details is the service's."""
    talk = Dialogue().live().begins_answer("r1", "i1")
    talk.ends_answer("r1", "failed").gives("client: response.done", "model: response.create gw_rc_1")
    talk.begins_answer("r2", "i2").ends_answer("r2")
    talk.begins_answer("r3", "i3")
    talk.ends_answer("r3", "failed").gives("client: response.done", "model: response.create gw_rc_2")


def test_what_waits_behind_a_failed_response_is_its_retry() -> None:
    """There is no second create, and no error while an answer is on its way."""
    talk = Dialogue({"agent": TOOLS}).live().begins_answer("r1", "i1")
    talk.calls("r1", "c1", "stock")
    talk.tool("c1", "a")
    talk.ends_answer("r1", "failed").gives("client: response.done", "model: response.create gw_rc_1")


def test_a_failure_no_retry_mends_is_left_to_the_link() -> None:
    """A spent quota is not tried again; the session ends."""
    talk = Dialogue().live().begins_answer("r1", "i1")
    step = talk.ends_answer("r1", "failed", status_details={"error": {"code": "insufficient_quota"}})
    assert step.told[-1] == "close 4502 upstream"


def test_a_spoken_goodbye_is_heard_before_the_end() -> None:
    """The agent says goodbye and ends the call in one response: the line is held until it was heard."""
    talk = Dialogue({"agent": TOOLS}).live().begins_answer("r1", "i1").says("r1", "i1", "Goodbye!", 1000)
    talk.calls("r1", "c1", "end_call").gives()
    talk.ends_answer("r1").gives("client: response.done")
    talk.later(1.5).gives("save 0 assistant 'Goodbye!' complete 1000/1000 ms")
    talk.later(0.2).gives("progress 1 agent_ended", "close upstream", "close 1000 agent_ended")


def test_a_goodbye_heard_before_the_response_was_done_is_not_repeated() -> None:
    """A service that speaks no faster than real time has said it all when the response ends."""
    talk = Dialogue({"agent": TOOLS}).live().begins_answer("r1", "i1").says("r1", "i1", "Bye!", 500)
    talk.calls("r1", "c1", "end_call")
    talk.later(3)
    talk.ends_answer("r1").gives("client: response.done")
    talk.later(0.5).gives("save 0 assistant 'Bye!' complete 500/500 ms", "close upstream", "close 1000 agent_ended")


def test_a_silent_end_is_given_a_goodbye() -> None:
    """An agent that ends without a word is asked to say one; then the line is closed."""
    talk = Dialogue({"agent": TOOLS}).live()
    talk.model("response.created", response={"id": "r1"})
    talk.calls("r1", "c1", "end_call")
    step = talk.ends_answer("r1")
    assert step.sent[-1]["response"] == {"instructions": GOODBYE_INSTRUCTIONS}
    talk.answers("r2", "i2", "Bye!", 500)
    talk.later(2).gives("save 0 assistant 'Bye!' complete 500/500 ms", "close upstream", "close 1000 agent_ended")


def test_a_goodbye_that_never_comes_does_not_hold_the_line() -> None:
    """The agent decided to end; after 15 s it does."""
    talk = Dialogue({"agent": TOOLS}).live().begins_answer("r1", "i1")
    talk.calls("r1", "c1", "end_call")
    talk.later(14.9).gives()
    assert talk.later(0.2).told[-1] == "close 1000 agent_ended"


@pytest.mark.parametrize("by_speech", [True, False])
def test_a_person_who_cuts_in_on_the_goodbye_is_listened_to(by_speech: bool) -> None:
    """A cancelled response decides nothing, not even the end of the talk."""
    talk = Dialogue({"agent": TOOLS}).live().begins_answer("r1", "i1").says("r1", "i1", "Good", 500)
    talk.calls("r1", "c1", "end_call")
    if by_speech:
        talk.model(STARTED, item_id="u1")
    else:
        talk.client("response.cancel")
    talk.ends_answer("r1", "cancelled")
    talk.later(60)
    assert talk.conversation.is_live


def test_a_tool_of_the_owners_may_be_called_end_call() -> None:
    """Only the built-in one ends the talk."""
    own = {"tools": [{"name": "end_call", "url": "https://shop.example"}]}
    talk = Dialogue({"agent": own}).live().begins_answer("r1", "i1")
    talk.calls("r1", "c1", "end_call").gives("run end_call c1")


JSON = st.recursive(
    st.none() | st.integers() | st.sampled_from(["message", "assistant", "user", "i1", "r1", "audio", "function_call"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["id", "type", "role", "content", "status", "error", "usage", "call_id"]), inner
        )
    ),
    max_leaves=8,
)
KINDS = [
    *[f"input_audio_buffer.{name}" for name in ("speech_started", "speech_stopped", "committed")],
    *[f"conversation.item.{name}" for name in ("added", "done", "created", "truncated")],
    *[f"conversation.item.input_audio_transcription.{name}" for name in ("completed", "failed")],
    *[f"response.{name}" for name in ("created", "done", "output_item.added", "output_item.done")],
    *[f"response.{name}" for name in ("content_part.added", "output_text.delta", "output_audio.delta")],
    *["error", "session.created", "session.updated", "response.output_audio_transcript.done"],
]
KEYS = ["item", "item_id", "previous_item_id", "response", "response_id", "delta", "part", "error", "session", "text"]


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(KEYS), JSON)), max_size=8))
def test_no_shape_of_an_upstream_event_breaks_the_conversation(events: list[tuple[str, Event]]) -> None:
    """A service that sends nonsense is survived, and what it says is stored at most once."""
    talk = Dialogue().live()
    for kind, fields in events:
        talk.model(kind, **fields)
    talk.later(10_000)
    stored = [command.turn.item_id for command in talk.all if type(command).__name__ == "SaveTurn"]  # type: ignore[union-attr]
    assert len(stored) == len(set(stored))
