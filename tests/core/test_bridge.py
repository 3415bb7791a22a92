"""A call's audio, marks and messages, as Twilio and the caller meet them."""

from __future__ import annotations

import base64
import json

import pytest

from core import commands as c
from tests.phone_dialogue import STREAM_SID, PhoneDialogue, checked, mulaw


def quiet_call(**fields: object) -> PhoneDialogue:
    """Return a live call in which nobody has spoken."""
    return PhoneDialogue({"greets": False, **fields}).live()


# ------------------------------------------------------------------ the caller's audio


def test_the_callers_audio_passes_untouched() -> None:
    """Every byte value goes from Twilio to the voice service as it is, unread."""
    call = quiet_call()
    audio = bytes(range(256))
    [append] = call.caller("media", ms=32, audio=audio).commands
    assert isinstance(append, c.SendUpstream)
    assert append.frame == b'{"type":"input_audio_buffer.append","audio":"' + base64.b64encode(audio) + b'"}'


def test_the_agents_audio_passes_untouched() -> None:
    """Every byte value goes from the voice service to Twilio as it is, with a mark behind it."""
    call = quiet_call().begins_answer("r1", "i1")
    audio = bytes(range(256))
    step = call.model("response.output_audio.delta", audio=audio, item_id="i1", response_id="r1")
    media, mark = step.commands
    assert isinstance(media, c.SendClient) and isinstance(mark, c.SendClient)
    assert media.frame == (
        b'{"event":"media","streamSid":"%s","media":{"payload":"%s"}}' % (STREAM_SID.encode(), base64.b64encode(audio))
    )
    assert mark.frame == b'{"event":"mark","streamSid":"%s","mark":{"name":"g1:1"}}' % STREAM_SID.encode()


def test_what_the_caller_said_before_anybody_listened_is_given_in_one_piece() -> None:
    """Audio from before `session.updated` is kept, and is the first audio the voice service gets."""
    call = PhoneDialogue({"agent": {"greeting": "Hello."}})
    call.begins().gives("open 1")
    call.caller("media", ms=20, audio=mulaw(20, 1)).gives()
    call.opened().gives("model: session.update gw_cfg_1")
    call.caller("media", ms=20, audio=mulaw(20, 2)).gives()
    call.model("session.created", session={"id": "s1"}).gives()
    call.caller("media", ms=20, audio=mulaw(20, 3)).gives()
    step = call.model("session.updated", session={"id": "s1"})
    step.gives("model: response.create Say exactly this sentence, and nothing e", "model: audio 60 ms")
    assert base64.b64decode(step.sent[-1]["audio"]) == mulaw(20, 1) + mulaw(20, 2) + mulaw(20, 3)
    call.caller("media").gives("model: audio 20 ms")


def test_of_a_long_wait_the_last_ten_seconds_are_kept() -> None:
    """The oldest audio is dropped."""
    call = PhoneDialogue({"greets": False})
    call.begins()
    for second in range(12):
        call.caller("media", ms=1000, audio=mulaw(1000, second))
    call.opened()
    [append] = call.model("session.updated", session={}).sent
    assert base64.b64decode(append["audio"]) == b"".join(mulaw(1000, second) for second in range(2, 12))


def test_a_caller_who_was_silent_has_nothing_to_give() -> None:
    """A session that is ready before any audio came is given none."""
    call = PhoneDialogue({"greets": False})
    call.begins()
    call.opened()
    call.model("session.updated", session={}).gives()


@pytest.mark.parametrize(("lost_ms", "filled_ms"), [(20, 20), (500, 500), (9_990, 9_990), (40_000, 10_000)])
def test_lost_audio_becomes_silence(lost_ms: int, filled_ms: int) -> None:
    """A jump of the media clock is filled with 0xFF, up to ten seconds, so that the end of speech can be heard."""
    call = quiet_call()
    call.caller("media", at_ms=100)
    [append] = call.caller("media", at_ms=120 + lost_ms).sent
    assert base64.b64decode(append["audio"]) == b"\xff" * filled_ms * 8 + mulaw(20)
    call.caller("media").gives("model: audio 20 ms")


def test_lost_audio_is_filled_while_nobody_listens_too() -> None:
    """What is kept has the caller's own timing."""
    call = PhoneDialogue({"greets": False})
    call.begins()
    call.caller("media", at_ms=0)
    call.caller("media", at_ms=120)
    call.opened()
    call.model("session.updated", session={}).gives("model: audio 140 ms")


def test_audio_in_an_unusual_shape_is_read() -> None:
    """Twilio may order and space its fields as it likes."""
    call = quiet_call()
    payload = base64.b64encode(mulaw(20)).decode()
    media = {"payload": payload, "timestamp": "0", "chunk": "1", "track": "inbound", "new": 1}
    frame = json.dumps({"streamSid": STREAM_SID, "media": media, "event": "media"}).encode()
    [append] = call.caller(frame).sent
    assert append["audio"] == payload


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("media", {"track": "outbound"}),
        ("media", {"stream_sid": "MZother"}),
        ("media", {"payload": ""}),
        ("stop", {"stream_sid": "MZother"}),
        ("dtmf", {"stream_sid": "MZother", "digit": "1"}),
        ("mark", {"name": "somebody's"}),
        ("connected", {}),
        ("unheard-of", {}),
    ],
)
def test_what_is_not_for_this_call_is_ignored(event: str, fields: dict[str, str]) -> None:
    """Other tracks would make the agent hear itself; other streams and unknown events mean nothing here."""
    call = quiet_call()
    call.caller(event, **fields).gives()
    assert call.bridge.next_deadline is not None


def test_a_second_start_is_ignored() -> None:
    """Neither the same start again nor another one changes the stream."""
    call = quiet_call()
    call.caller("start").gives("note second start ignored")
    call.caller("start", stream_sid="MZother").gives("note second start ignored")
    call.caller("media").gives("model: audio 20 ms")


def test_a_message_that_is_none_is_noted_without_its_content() -> None:
    """The log names the fault."""
    call = quiet_call()
    step = call.caller(b'{"event":"media","media":{"payload":"4111 1111"}}')
    [note] = step.commands
    assert isinstance(note, c.Note) and note.fields == {"about": "payload"}


# ------------------------------------------------------------------ what Twilio is sent


def test_marks_have_names_of_their_own_in_every_generation() -> None:
    """After a `clear` a new generation begins, and its numbers go on."""
    call = quiet_call(agent={}).begins_answer("r1", "i1")
    delta = {"ms": 400, "item_id": "i1", "response_id": "r1"}
    call.model("response.output_audio.delta", **delta).gives("media 400 ms", "mark g1:1")
    call.model("response.output_audio.delta", **delta).gives("media 400 ms", "mark g1:2")
    call.model("input_audio_buffer.speech_started", item_id="u1")
    call.ends_answer("r1", "cancelled")
    call.begins_answer("r2", "i2")
    delta |= {"item_id": "i2", "response_id": "r2"}
    call.model("response.output_audio.delta", **delta).gives("media 400 ms", "mark g2:3")


def test_marks_of_a_flushed_generation_move_nothing() -> None:
    """Twilio gives all marks back after `clear`; what they say about the next answer is nothing."""
    call = PhoneDialogue({"greets": False}, plays=False).live().begins_answer("r1", "i1")
    call.says("r1", "i1", "One two three.", 1000)
    call.later(0.4)
    call.model("input_audio_buffer.speech_started").gives(
        "drop audio", "clear", "save 0 assistant 'One' interrupted 250/1000 ms", "model: truncate i1 at 250 ms"
    )
    call.ends_answer("r1", "cancelled")
    call.begins_answer("r2", "i2").says("r2", "i2", "Four five six.", 1000)
    for name in ("g1:1", "g1:2", "g2:7"):
        call.caller("mark", name=name).gives()
    call.later(0.4)
    step = call.model("input_audio_buffer.speech_started")
    assert step.told[-1] == "model: truncate i2 at 250 ms"


def test_an_empty_piece_of_audio_is_not_sent() -> None:
    """Twilio takes a message without audio for a mistake."""
    call = quiet_call().begins_answer("r1", "i1")
    call.model("response.output_audio.delta", audio=b"", item_id="i1", response_id="r1").gives()


@pytest.mark.parametrize("audio", [mulaw(20), b"\xff", b"\x00\x01"])
def test_agent_audio_in_an_unusual_shape_is_heard(audio: bytes) -> None:
    """A delta with a new field is read and passed on, mark included."""
    call = quiet_call().begins_answer("r1", "i1")
    ids = {"item_id": "i1", "response_id": "r1", "new_field": {}}
    step = call.model("response.output_audio.delta", delta=base64.b64encode(audio).decode(), **ids)
    media, mark = step.commands
    assert isinstance(media, c.SendClientAudio) and isinstance(mark, c.SendClient)
    assert base64.b64decode(checked(media.frame)["media"]["payload"]) == audio
    assert checked(mark.frame)["event"] == "mark"


@pytest.mark.parametrize(
    "fields",
    [
        {"delta": "", "item_id": "i1"},
        {"delta": '"}}', "item_id": "i1"},
        {"delta": "ÄÄÄÄ", "item_id": "i1"},
        {"delta": "AAAA"},
        {"item_id": "i1"},
    ],
)
def test_agent_audio_that_is_none_is_dropped(fields: dict[str, str]) -> None:
    """What is no base64 would break the message it is put into."""
    quiet_call().begins_answer("r1", "i1").model("response.output_audio.delta", response_id="r1", **fields).gives()


def test_audio_before_the_session_is_configured_is_not_heard() -> None:
    """A model that speaks too early is not passed on."""
    call = PhoneDialogue()
    call.begins()
    call.opened()
    call.model("response.output_audio.delta", ms=20, item_id="i1", response_id="r1").gives()
    call.model("response.output_audio.delta", delta="AAAA", item_id="i1", response_id="r1").gives()


def test_a_caller_sees_no_events() -> None:
    """What a browser is shown has no place on a telephone line."""
    call = quiet_call(budget_usd=1.0, spent_usd=0.9)
    call.hears().answers("r1", "i1", "Yes.", 200)
    usage = {"total_tokens": 10, "input_tokens": 5, "output_tokens": 5}
    call.begins_answer("r2", "i2").ends_answer("r2", usage=usage)
    call.model("error", error={"code": "something", "message": "No."}).gives()
    call.lost().gives("close upstream", "open 2 after 0.4 s")
    bridge = call.bridge
    assert bridge.notice({"type": "gateway.notice", "code": "draining"}) == []
    assert bridge.token_accepted(None, call.now) == bridge.token_refused(call.now) == []
    assert bridge.refuse_binary(call.now) == []


def test_an_event_that_is_none_is_noted() -> None:
    """The voice service's nonsense is counted, not shown."""
    call = quiet_call()
    [note] = call.bridge.upstream_received(1, b"[]", call.now)
    assert isinstance(note, c.Note) and note.fields == {"bytes": 2}


# ------------------------------------------------------------------ who speaks first, and what is lost on the way


def test_the_agent_speaks_first() -> None:
    """The greeting is asked for when the session is ready, once, and is stored when it was heard."""
    call = PhoneDialogue({"agent": {"greeting": "Good day."}})
    call.begins()
    call.opened()
    call.model("session.updated", session={}).gives("model: response.create Say exactly this sentence, and nothing e")
    call.greets("Good day.", 800)
    assert call.turns == []
    call.later(2.0)
    assert call.turns == [("assistant", "Good day.", "complete")]


def test_a_lost_link_costs_the_caller_nothing_that_was_said() -> None:
    """Audio is kept while the voice service is away; the fresh session is told the talk and then given the audio."""
    call = quiet_call().hears("u1", "Which day is it?")
    call.answers("r1", "i1", "It is Friday.", 500)
    call.later(1.0)
    call.model("input_audio_buffer.speech_started", item_id="u2").gives("drop audio")
    call.lost().gives("close upstream", "open 2 after 0.4 s")
    call.caller("media", ms=500).gives()
    call.opened().gives("model: session.update gw_cfg_2")
    call.model("session.created", session={}, generation=1).gives()
    call.caller("media", ms=100).gives()
    call.model("session.updated", session={}).gives(
        "model: user 'Which day is it?'", "model: assistant 'It is Friday.'", "model: audio 600 ms"
    )
    call.caller("media").gives("model: audio 20 ms")


def test_an_answer_that_was_owed_is_asked_for_again() -> None:
    """What plays at Twilio is played to its end; the rest of the answer is asked for on the fresh link."""
    call = quiet_call().hears("u1", "Tell me a story.")
    call.begins_answer("r1", "i1").says("r1", "i1", "Once upon a time", 1000)
    call.lost()
    call.opened()
    step = call.model("session.updated", session={})
    assert step.told[-1] == "model: response.create"
    call.later(1.5)
    call.model("response.output_audio.delta", ms=200, item_id="i1", response_id="r1", generation=1).gives()
    assert call.twilio.heard_ms(call.now) == pytest.approx(1000)


# ------------------------------------------------------------------ tools of the line


def test_a_tool_of_another_kind_is_run_outside() -> None:
    """Only built-in tools the agent has are the line's own."""
    call = quiet_call(agent={"tools": [{"name": "transfer_call", "url": "https://crm.example/transfer"}]})
    call.model("response.created", response={"id": "r1"})
    call.calls("r1", "c1", "transfer_call").gives("run transfer_call c1")
    call.calls("r1", "c2", "send_dtmf_wait").gives("run send_dtmf_wait c2")
    call.tool("c1", "no").gives("save 0 tool 'no' complete", "model: function_call_output c1")
    call.ends_answer("r1")
    call.tool("c2").gives("save 1 tool 'done' complete", "model: function_call_output c2", "model: response.create")


def test_a_transfer_waits_for_the_last_mark() -> None:
    """By the clock the sentence is over; the line is slow and the caller still hears it."""
    agent = {"tools": [{"builtin": "transfer_call"}], "call_settings": {"transfer_numbers": ["+4930123456"]}}
    call = PhoneDialogue({"greets": False, "agent": agent}, delay_s=0.7).live()
    call.begins_answer("r1", "i1").says("r1", "i1", "I connect you.", 500)
    call.calls("r1", "c1", "transfer_call")
    call.ends_answer("r1")
    assert 0.5 + 2 * 0.7 <= call.until("redirect") <= 0.5 + 2 * 0.7 + 0.5


def test_a_slow_tool_is_bridged_by_a_few_words() -> None:
    """The caller does not wonder whether anybody is there."""
    tools = [{"name": "book", "url": "https://crm.example/book", "filler": "One moment."}]
    call = quiet_call(agent={"tools": tools})
    call.model("response.created", response={"id": "r1"})
    call.calls("r1", "c1", "book").gives("run book c1")
    call.ends_answer("r1")
    call.later(1.1).gives()
    assert call.until("model: response.create Say exactly") == pytest.approx(0.1)


def test_a_tool_that_ends_while_the_caller_speaks_waits_for_them() -> None:
    """The model gets the result at once and answers when the caller has ended, as it does by itself."""
    tools = [{"name": "book", "url": "https://crm.example/book"}]
    call = quiet_call(agent={"tools": tools})
    call.model("response.created", response={"id": "r1"})
    call.calls("r1", "c1", "book")
    call.ends_answer("r1")
    call.model("input_audio_buffer.speech_started", item_id="u1")
    call.tool("c1").gives("save 0 tool 'done' complete", "model: function_call_output c1")


# ------------------------------------------------------------------ the bill


def test_usage_tells_how_long_each_side_was_heard() -> None:
    """The caller's speech as the service marked it, the agent's as far as it was played."""
    call = quiet_call()
    call.model("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=1000)
    call.model("input_audio_buffer.speech_stopped", item_id="u1", audio_end_ms=2200)
    call.begins_answer("r1", "i1").says("r1", "i1", "One two three four.", 2000)
    call.later(0.65)
    call.model("input_audio_buffer.speech_started", item_id="u2", audio_start_ms=4000)
    call.ends_answer("r1", "cancelled")
    call.caller("stop")
    [usage] = [x.usage for x in call.all if isinstance(x, c.SaveProgress) and x.end_reason]
    assert usage["voiced_ms"] == {"caller": 1200, "agent": 500}
    assert usage["responses"] == 1
    assert usage["voice_minutes"] == 1


def test_a_call_has_one_bridge_and_one_bridge_one_call() -> None:
    """Nothing is shared between calls."""
    one, other = quiet_call(), quiet_call()
    one.caller("media", at_ms=0)
    one.begins_answer("r1", "i1").says("r1", "i1", "Hello.", 200)
    other.caller("media", at_ms=90_000).gives("model: audio 20 ms")
    other.begins_answer("r1", "i1")
    other.model("response.output_audio.delta", ms=20, item_id="i1", response_id="r1").gives("media 20 ms", "mark g1:1")
