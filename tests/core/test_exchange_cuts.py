"""The listener cuts in."""

from __future__ import annotations

from typing import Any

import pytest

from tests.dialogue import Dialogue, base64_of

TOOLS = {"tools": [{"name": "stock", "url": "https://shop.example"}, {"builtin": "end_call"}]}
TEXT = "one two three four five"
STARTED = "input_audio_buffer.speech_started"


def talking(seconds: int = 2, **fields: Any) -> Dialogue:
    """Return a dialogue in which the agent's answer, sent at once, is being heard."""
    talk = Dialogue(fields).live().asks("u1", "Hi?")
    return talk.answers("r1", "i1", TEXT, seconds * 1000)


def test_the_listener_cuts_in_long_after_the_response_was_done() -> None:
    """Nothing runs any more; the client reports what it played, and the model forgets the rest."""
    talk = talking()
    talk.later(1.0).gives()
    talk.model(STARTED, item_id="u2").gives(f"client: {STARTED}", "drop audio")
    report = {"item_id": "i1", "content_index": 0, "audio_end_ms": 800}
    saved = "save 1 assistant 'one two' interrupted 800/2000 ms"
    talk.client("conversation.item.truncate", **report).gives(saved, "model: truncate i1 at 800 ms")
    talk.later(5).gives()


def test_a_client_that_never_reports() -> None:
    """After 0.7 s the estimate decides, for the store and for the model."""
    talk = talking()
    talk.later(1.15).gives()
    talk.model(STARTED, item_id="u2")
    talk.later(0.69).gives()
    talk.later(0.02).gives("save 1 assistant 'one two' interrupted 1000/2000 ms", "model: truncate i1 at 1000 ms")


def test_an_answer_of_which_nothing_was_heard_is_deleted() -> None:
    """The listener cut in before the first sound reached the ear."""
    talk = talking()
    talk.model(STARTED, item_id="u2")
    talk.later(1).gives("model: delete i1")


@pytest.mark.parametrize(
    ("heard_ms", "saved", "sent"),
    [
        (0, [], ["model: delete i1"]),
        (99_999, ["save 1 assistant 'one two three four five' complete 2000/2000 ms"], []),
    ],
)
def test_reports_at_the_ends_of_the_scale(heard_ms: int, saved: list[str], sent: list[str]) -> None:
    """Nothing heard: the item goes; everything heard, or more than there was: nothing is forgotten."""
    talk = talking()
    talk.later(0.5)
    talk.model(STARTED, item_id="u2")
    talk.client("conversation.item.truncate", item_id="i1", audio_end_ms=heard_ms).gives(*saved, *sent)


def test_late_and_repeated_reports() -> None:
    """A report after the decision only ever shortens; said twice it changes nothing; nothing is stored twice."""
    talk = talking()
    talk.later(1.15)
    talk.model(STARTED, item_id="u2")
    talk.later(1)
    talk.client("conversation.item.truncate", item_id="i1", audio_end_ms=1200).gives()
    talk.client("conversation.item.truncate", item_id="i1", audio_end_ms=300).gives("model: truncate i1 at 300 ms")
    talk.client("conversation.item.truncate", item_id="i1", audio_end_ms=300).gives()


def test_a_report_before_the_speech_was_noticed() -> None:
    """A client with its own ears reports first; the later event cuts nothing again."""
    talk = talking()
    talk.later(0.5)
    saved = "save 1 assistant '' interrupted 200/2000 ms"
    talk.client("conversation.item.truncate", item_id="i1", audio_end_ms=200, event_id="mine").gives(
        saved, "model: truncate i1 at 200 ms"
    )
    talk.model(STARTED, item_id="u2").gives(f"client: {STARTED}", "drop audio")
    talk.later(5).gives()


def test_a_report_about_an_unknown_item() -> None:
    """The client hears of it; upstream does not."""
    step = talking().client("conversation.item.truncate", item_id="x", audio_end_ms=1, event_id="mine")
    assert step.told == ["client: error item_truncate_invalid_item_id"]
    assert step.events[0]["error"]["event_id"] == "mine"


def test_several_items_of_one_response_are_cut_each_by_itself() -> None:
    """The heard one stays, the playing one is truncated, the waiting one is deleted."""
    talk = Dialogue().live().begins_answer("r1", "i1").says("r1", "i1", "First.", 1000)
    for item_id in ("i2", "i3"):
        talk.begins_item("r1", item_id).says("r1", item_id, TEXT, 1000)
    talk.ends_answer("r1")
    talk.later(1.65).gives()
    talk.model(STARTED, item_id="u1")
    saved = "save 1 assistant 'one two' interrupted 500/1000 ms"
    talk.later(0.7).gives("save 0 assistant 'First.' complete 1000/1000 ms", saved, "model: truncate i2 at 500 ms",
                          "model: delete i3")  # fmt: skip


def test_late_deltas_of_a_cancelled_response_are_dropped() -> None:
    """Once the listener cut in, nothing of that response is heard; its text is shared out over all of its audio."""
    talk = Dialogue().live().begins_answer("r1", "i1").says("r1", "i1", "one two three four ", 1000)
    talk.later(0.65)
    talk.model(STARTED, item_id="u1")
    talk.model("response.output_audio.delta", response_id="r1", item_id="i1", ms=1000).gives()
    audio = {"response_id": "r1", "item_id": "i1", "delta": base64_of(1000), "obfuscation": "x"}
    talk.model("response.output_audio.delta", **audio).gives()
    ids = {"response_id": "r1", "item_id": "i1"}
    talk.model("response.output_audio_transcript.done", transcript="one two three four five six seven eight", **ids)
    talk.ends_answer("r1", "cancelled").gives("client: response.done")
    talk.later(0.7).gives("save 0 assistant 'one' interrupted 500/3000 ms", "model: truncate i1 at 500 ms")
    talk.begins_answer("r2", "i2")
    talk.model("response.output_audio.delta", response_id="r2", item_id="i2", ms=20).gives("client: audio of i2")


def test_a_response_cancelled_before_any_sound() -> None:
    """Nothing is stored, and the model does not remember words nobody heard."""
    talk = Dialogue().live().begins_answer("r1", "i1")
    ids = {"response_id": "r1", "item_id": "i1"}
    talk.model("response.output_audio_transcript.delta", delta="Hello, I", **ids)
    talk.model(STARTED, item_id="u1")
    talk.ends_answer("r1", "cancelled").gives("client: response.done")
    talk.later(1).gives("model: delete i1")


def test_a_client_that_cancels_hears_nothing_of_it_any_more() -> None:
    """What comes late of a response the client cancelled is kept back, even before its end."""
    talk = Dialogue().live().begins_answer("r1", "i1").says("r1", "i1", TEXT, 1000)
    talk.client("response.cancel").gives("model: response.cancel")
    talk.model("response.output_audio.delta", response_id="r1", item_id="i1", ms=1000).gives()
    talk.ends_answer("r1", "cancelled")
    talk.later(2).gives("save 0 assistant 'one two' interrupted 1000/2000 ms", "model: truncate i1 at 1000 ms")


def test_a_cancel_before_the_response_began_silences_it() -> None:
    """The cancel may overtake `response.created`; what the response still says is not heard."""
    talk = Dialogue().live()
    talk.client("response.create")
    talk.client("response.cancel").gives("model: response.cancel")
    talk.begins_answer("r1", "i1")
    talk.model("response.output_audio.delta", response_id="r1", item_id="i1", ms=20).gives()
    talk.ends_answer("r1", "cancelled")
    assert talk.later(1).told == ["model: delete i1"]


def test_a_cancel_of_another_response_leaves_the_running_one() -> None:
    """A stale id goes upstream, whose error says nothing new."""
    talk = Dialogue().live().begins_answer("r1", "i1")
    talk.client("response.cancel", response_id="r0").gives("model: response.cancel")
    talk.model("error", error={"code": "response_cancel_not_active"}).gives()
    talk.model("response.output_audio.delta", response_id="r1", item_id="i1", ms=20).gives("client: audio of i1")


def test_an_answer_that_may_not_be_interrupted_is_not() -> None:
    """With interrupt_response off the person's speech is shown and cuts nothing."""
    talk = Dialogue({"agent": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}}).live()
    talk.answers("r1", "i1", TEXT, 2000)
    talk.model(STARTED, item_id="u1").gives(f"client: {STARTED}")
    talk.later(5).gives("save 0 assistant 'one two three four five' complete 2000/2000 ms")


def test_a_sentence_is_spoken_after_the_answer_or_instead_of_its_rest() -> None:
    """A sentence of the server's waits for the running answer, unless it is more urgent than that."""
    talk = Dialogue().live().begins_answer("r1", "i1").says("r1", "i1", TEXT, 2000)
    exchange = talk.conversation.exchange
    talk._fact("say", exchange.speak("Say: one", talk.now)).gives()
    talk.later(0.5)
    talk._fact("say", exchange.speak("Say: two", talk.now, over_answer=True)).gives(
        "model: response.cancel", "drop audio"
    )
    step = talk.ends_answer("r1", "cancelled")
    assert step.sent[-1]["response"] == {"instructions": "Say: two"}
    talk.ends_answer("r1")
    quiet = Dialogue().live()
    quiet._fact("say", quiet.conversation.exchange.speak("Say: one", quiet.now, over_answer=True)).gives(
        "drop audio", "model: response.create gw_rc_1"
    )


def test_a_cut_is_decided_without_a_link() -> None:
    """There is nothing to tell the model that is gone; the turn is stored all the same."""
    talk = talking()
    talk.later(1.15)
    talk.model(STARTED, item_id="u2")
    commands = talk.conversation.exchange.cut_unreported(is_live=False)
    talk._fact("decided", commands).gives("save 1 assistant 'one two' interrupted 1000/2000 ms")


def test_text_of_an_item_nobody_announced_is_shown_and_not_stored() -> None:
    """Without an item there is no turn."""
    talk = Dialogue().live()
    delta = "response.output_audio_transcript.delta"
    talk.model(delta, item_id="x", delta="Hi").gives(f"client: {delta}")
    talk.model("response.content_part.added", item_id="x", part={"type": "audio"})
    talk.later(60).gives()


def test_a_loss_replays_what_was_said() -> None:
    """The fresh session is told the turns and asked for the answer that is owed."""
    talk = Dialogue().live().asks("u1", "Hi?")
    talk.lost()
    talk.opened()
    talk.model("session.updated").gives(
        "model: user 'Hi?'", "client: notice reconnected", "model: response.create gw_rc_1"
    )
