"""Every way a call ends: the caller hears why, the line is released once, and nothing comes after."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import commands as c
from core.bridge import NO_MEDIA_S, PLAYED_S
from core.errors import (
    AGENT_ENDED,
    CLIENT_LEFT,
    OPERATOR_ENDED,
    PAGE_CLOSED,
    AtCapacity,
    BudgetExhausted,
    Draining,
    Ending,
    InternalError,
    KeyMissing,
    UpstreamUnavailable,
)
from tests.phone_dialogue import APOLOGY, PhoneDialogue, checked

TOOLS = [{"builtin": name} for name in ("end_call", "transfer_call", "send_dtmf_wait")]
APOLOGY_S = len(APOLOGY) / 8000
TROUBLES = [UpstreamUnavailable, BudgetExhausted, Draining, InternalError, KeyMissing, AtCapacity]


def talk(*, delay_s: float = 0.05, plays: bool = True, apology: bytes = APOLOGY) -> PhoneDialogue:
    """Return a live call of an agent that may end it."""
    agent = {"tools": TOOLS, "call_settings": {"silence_timeout_s": 1000}}
    return PhoneDialogue({"greets": False, "agent": agent}, delay_s=delay_s, plays=plays, apology=apology).live()


def says_goodbye(call: PhoneDialogue, ms: int = 2000, *, piece_ms: int = 500, call_id: str = "c1") -> PhoneDialogue:
    """Let the model say goodbye and end the call."""
    call.begins_answer("r1", "i1")
    for _ in range(ms // piece_ms):
        call.says("r1", "i1", "Goodbye then. ", piece_ms)
    call.calls("r1", call_id, "end_call")
    call.ends_answer("r1")
    return call


# ------------------------------------------------------------------ the goodbye


@pytest.mark.parametrize("delay_s", [0.02, 0.2, 0.9])
def test_the_goodbye_is_heard_to_its_end(delay_s: float) -> None:
    """The line is released when the last mark came back, however slow the line; it is stored as heard."""
    call = says_goodbye(talk(delay_s=delay_s))
    took_s = call.until("hang up")
    assert call.twilio.heard_ms(call.now) == pytest.approx(2000)
    assert 2.0 + delay_s <= took_s <= 2.0 + 2 * delay_s + 0.6
    assert call.log[-2:] == ["hang up", "close 1000 agent_ended"] and "media 1600 ms" not in call.log
    assert call.turns == [("assistant", "Goodbye then. Goodbye then. Goodbye then. Goodbye then.", "complete")]
    assert call.bridge.next_deadline is None


def test_a_goodbye_whose_mark_never_comes_has_a_cap() -> None:
    """The line is released a little later than computed."""
    call = says_goodbye(talk(plays=False))
    assert call.until("hang up") == pytest.approx(2.15 + 0.4 + PLAYED_S)


def test_a_goodbye_on_a_very_slow_line_is_heard_to_its_end() -> None:
    """Every mark that comes back moves the cap."""
    call = talk(delay_s=2.7)
    call.begins_answer("r1", "i1").says("r1", "i1", "Good", 200).says("r1", "i1", "bye.", 4000)
    call.calls("r1", "c1", "end_call")
    call.ends_answer("r1")
    call.until("hang up")
    assert call.twilio.heard_ms(call.now) == pytest.approx(4200)


def test_the_caller_hangs_up_during_the_goodbye() -> None:
    """No REST call for a call that is over, one close, and the end is the agent's."""
    call = says_goodbye(talk(delay_s=0.9), piece_ms=2000)
    call.until("progress 1 agent_ended")
    assert call.twilio.heard_ms(call.now) < 2000
    call.caller("media").gives()
    call.caller("dtmf", digit="1").gives()
    call.caller("stop").gives("close 1000 agent_ended")
    call.leaves().gives()
    assert "hang up" not in call.log and call.bridge.next_deadline is None


def test_a_caller_who_cuts_in_on_the_goodbye_stays() -> None:
    """Who speaks while the agent says goodbye has something to say."""
    call = says_goodbye(talk())
    call.later(1.0)
    call.model("input_audio_buffer.speech_started", item_id="u1")
    call.later(30.0)
    assert call.conversation.is_live and "hang up" not in call.log


def test_an_agent_that_ends_without_a_word_says_goodbye() -> None:
    """A call is never ended in the middle of silence; cut in on it and the talk goes on."""
    call = talk()
    call.model("response.created", response={"id": "r1"})
    call.calls("r1", "c1", "end_call")
    assert call.ends_answer("r1").told[-1] == "model: response.create Say goodbye in one short sentence."
    call.begins_answer("r2", "i2").says("r2", "i2", "Bye!", 500)
    call.later(0.2)
    call.model("input_audio_buffer.speech_started", item_id="u1")
    call.ends_answer("r2", "cancelled")
    call.later(5.0)
    assert call.conversation.is_live
    call.model("input_audio_buffer.speech_stopped", item_id="u1")
    says_goodbye(call, 1000, call_id="c2")
    call.until("hang up")


def test_a_long_goodbye_is_not_cut_off() -> None:
    """Forty seconds of farewell are heard."""
    call = says_goodbye(talk(), 40_000)
    call.until("hang up")
    assert call.twilio.heard_ms(call.now) == pytest.approx(40_000)


# ------------------------------------------------------------------ trouble


def test_a_call_the_operator_ends_is_not_cut_off_without_a_word() -> None:
    """The caller hears the clip to its end; the end is told as the agent's own, in whose answer it comes."""
    call = talk().begins_answer("r1", "i1").says("r1", "i1", "As I was saying", 4000)
    call.ends(OPERATOR_ENDED)
    assert call.until("hang up") >= APOLOGY_S
    assert call.log[-2:] == ["hang up", "close 1000 agent_ended"]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_is_told_before_the_line_is_released(trouble: Any) -> None:
    """The caller hears the clip to its end, then the call is ended with the reason it had."""
    call = talk()
    call.answers("r1", "i1", "One two three four.", 4000)
    call.later(1.0)
    began = call.now
    step = call.ends(trouble.ending)
    assert step.told[-4:] == ["drop audio", "clear", "media 1600 ms", "mark g2:2"]
    assert call.turns[-1][2] == "interrupted"
    call.until("hang up")
    assert call.now - began == pytest.approx(APOLOGY_S + 0.1)
    assert call.log[-2:] == ["hang up", f"close {trouble.ending.code} {trouble.ending.end_reason}"]
    assert call.bridge.next_deadline is None


def test_the_clip_is_played_as_it_is() -> None:
    """Byte by byte."""
    call = talk()
    frames = [x.frame for x in call.ends(InternalError.ending).commands if isinstance(x, c.SendClient)]
    assert checked(frames[0])["media"]["payload"].encode() == base64.b64encode(APOLOGY)


def test_a_clip_whose_mark_never_comes_has_a_cap() -> None:
    """No end waits for Twilio for ever."""
    call = talk(plays=False)
    call.ends(InternalError.ending)
    assert call.until("hang up") == pytest.approx(APOLOGY_S + PLAYED_S)


def test_without_a_clip_the_line_is_released_at_once() -> None:
    """A server without its clip ends calls all the same."""
    call = talk(apology=b"")
    call.ends(InternalError.ending).gives("close upstream", "drop audio", "hang up", "close 1011 internal")


@pytest.mark.parametrize("state", ["opening", "configuring"])
def test_trouble_before_anybody_spoke_is_told_too(state: str) -> None:
    """A missing key, a refused handshake: the caller does not hear a dead line."""
    call = PhoneDialogue()
    call.begins()
    if state == "configuring":
        call.opened()
    call.caller("media", ms=500)
    call.lost("refused", status=403)
    assert call.log[-2:] == ["media 1600 ms", "mark g1:1"]
    call.caller("media", ms=500).gives()
    call.until("hang up")
    assert call.log[-1] == "close 4502 upstream"


def test_a_voice_service_lost_for_good_is_told() -> None:
    """After the last try."""
    call = talk()
    for _ in range(4):
        call.lost("unreachable")
    call.lost("unreachable")
    call.until("hang up")
    assert call.log[-1] == "close 4502 upstream" and "media 1600 ms" in call.log


def test_a_budget_that_is_spent_ends_the_call_after_the_answer() -> None:
    """The answer is heard, then the clip."""
    call = PhoneDialogue({"greets": False, "budget_usd": 1.0, "spent_usd": 1.0}).live()
    call.begins_answer("r1", "i1").says("r1", "i1", "Yes.", 1000)
    call.ends_answer("r1", usage={"total_tokens": 1})
    call.until("hang up")
    assert call.twilio.heard_ms(call.now) == pytest.approx(1000 + APOLOGY_S * 1000)
    assert call.log[-1] == "close 4029 budget"


# ------------------------------------------------------------------ the line


def test_a_dead_line_is_given_up() -> None:
    """Twilio sends media in silence too; without any the call is ended, and nothing is said into it."""
    call = talk()
    call.later(3.0)
    call.carries = False
    call.caller("media", ms=20)
    assert call.until("hang up") == pytest.approx(NO_MEDIA_S)
    assert call.log[-1] == "close 1000 client_left" and "media 1600 ms" not in call.log


def test_media_that_is_read_keeps_the_line_alive_too() -> None:
    """Kept audio is a sign of life as well as forwarded audio."""
    call = PhoneDialogue({"agent": {"call_settings": {"silence_timeout_s": 1000}}})
    call.carries = False
    call.begins()
    for _ in range(3):
        call.later(NO_MEDIA_S - 1)
        call.caller("media")
    assert call.bridge.next_deadline is not None and "hang up" not in call.log


@pytest.mark.parametrize("ending", [CLIENT_LEFT, PAGE_CLOSED])
def test_a_socket_that_is_gone_ends_the_call(ending: Ending) -> None:
    """No hang-up and no words for somebody who left; what was heard is stored."""
    call = talk()
    call.answers("r1", "i1", "one two three four", 2000)
    call.later(1.15)
    call.leaves(ending)
    assert call.turns == [("assistant", "one two", "interrupted")]
    assert call.log[-1] == f"close {ending.code} client_left" and "hang up" not in call.log
    assert call.bridge.next_deadline is None


def test_stop_and_the_close_behind_it_are_one_end() -> None:
    """Twilio says goodbye twice."""
    call = talk()
    call.caller("stop").gives("close upstream", "close 1000 client_left")
    call.leaves().gives()
    call.caller("media").gives()
    call.ends(Draining.ending).gives()
    assert call.log.count("close 1000 client_left") == 1


def test_a_caller_who_hangs_up_while_the_link_is_opened_leaves_nothing() -> None:
    """The link that opens late is not used."""
    call = PhoneDialogue()
    call.begins()
    call.caller("stop").gives("close upstream", "close 1000 client_left")
    call.opened().gives()
    call.lost().gives()
    call.later(60.0).gives()


def test_a_caller_who_hangs_up_during_a_tool_leaves_nothing() -> None:
    """Its output comes too late."""
    call = talk()
    call.model("response.created", response={"id": "r1"})
    call.calls("r1", "c1", "book")
    call.caller("stop")
    call.tool("c1").gives()


def test_an_end_by_the_server_itself_without_a_reason_to_tell_is_at_once() -> None:
    """A call that is replaced is released without a word."""
    call = talk()
    call.ends(CLIENT_LEFT).gives("close upstream", "hang up", "close 1000 client_left")


def test_what_waits_is_forgotten_at_the_end() -> None:
    """A transfer that was announced is not made while the line is being released."""
    call_settings = {"silence_timeout_s": 1000, "transfer_numbers": ["+4930123456"]}
    call = PhoneDialogue({"greets": False, "agent": {"tools": TOOLS, "call_settings": call_settings}}).live()
    call.begins_answer("r1", "i1").says("r1", "i1", "I connect you.", 500)
    call.calls("r1", "c1", "transfer_call")
    call.calls("r1", "c2", "send_dtmf_wait")
    call.ends_answer("r1")
    call.caller("dtmf", digit="1")
    call.ends(InternalError.ending)
    call.later(60.0)
    assert not any(text.startswith("redirect") for text in call.log) and call.log[-1] == "close 1011 internal"


# ------------------------------------------------------------------ whatever happens

OFTEN = ["later", "media", "digit", "speech", "silence", "response", "audio", "audio", "done", "tool"]
SELDOM = [
    *["hole", "start", "junk", "stop", "gone", "end", "drain", "opened", "created", "updated", "lost", "refused"],
    *["phrase", "odd audio", "cancelled", "failed", "end_call", "transfer", "wait", "book", "error", "old mark"],
]
FACTS = st.sampled_from(OFTEN * 3 + SELDOM)


class Anything:
    """Does whatever a fact's name says, in any order."""

    def __init__(self, *, plays: bool, longest_s: float, interruptible: bool) -> None:
        call_settings = {"transfer_numbers": ["+4930123456"], "silence_timeout_s": 4, "end_call_phrases": ["bye"]}
        agent = {
            "greeting": "Hello.",
            "call_settings": call_settings,
            "tools": [*TOOLS, {"name": "book", "url": "https://crm.example", "filler": "One moment."}],
        }
        fields = {"agent": agent, "budget_usd": 5.0, "interruptible": interruptible}
        self.call = PhoneDialogue(fields, plays=plays, longest_s=longest_s)
        self.number = 0

    def happens(self, fact: str, seconds: float) -> None:
        """Let one thing happen."""
        call, n = self.call, self.number
        ids = {"response_id": f"r{n}", "item_id": f"i{n}"}
        match fact:
            case "later":
                call.later(seconds)
            case "media":
                call.caller("media", ms=20)
            case "hole":
                call.caller("media", at_ms=call.media_ms + round(seconds * 1000))
            case "digit":
                call.caller("dtmf", digit="#" if n % 3 == 0 else "5")
            case "start" | "stop":
                call.caller(fact)
            case "junk":
                call.caller(b'{"event":"media","media":7}')
            case "old mark":
                call.caller("mark", name=f"g{n}:1")
            case "gone":
                call.leaves()
            case "end" | "drain":
                call.ends(AGENT_ENDED if fact == "end" else Draining.ending)
            case _:
                self.upstream(fact, ids)

    def upstream(self, fact: str, ids: dict[str, str]) -> None:
        """Let the voice service or a tool do something."""
        call, n = self.call, self.number
        match fact:
            case "opened":
                call.opened()
            case "created" | "updated":
                call.model(f"session.{fact}", session={"id": "s1"})
            case "lost":
                call.lost()
            case "refused":
                call.lost("refused", status=403 if n % 4 == 3 else 500)
            case "speech" | "silence":
                call.model(f"input_audio_buffer.speech_{'started' if fact == 'speech' else 'stopped'}", item_id=f"u{n}")
            case "phrase":
                call.model("@completed", item_id=f"u{n}", transcript="Good bye, bye!")
            case "response":
                self.number += 1
                call.begins_answer(f"r{n + 1}", f"i{n + 1}")
            case "audio":
                call.model("response.output_audio.delta", ms=400, **ids)
            case "odd audio":
                call.model("response.output_audio.delta", delta="/////w==", odd=1, **ids)
            case "done" | "cancelled" | "failed":
                call.ends_answer(f"r{n}", "completed" if fact == "done" else fact)
            case "tool":
                call.tool(f"c{n}")
            case "error":
                call.model("error", error={"code": "conversation_already_has_active_response", "event_id": "gw_rc_1"})
            case _:
                names = {"end_call": "end_call", "transfer": "transfer_call", "wait": "send_dtmf_wait", "book": "book"}
                call.calls(f"r{n}", f"c{n}", names[fact], '{"digits": 2}')


@settings(max_examples=100, deadline=None)
@given(
    facts=st.lists(st.tuples(FACTS, st.floats(0.0, 6.0)), max_size=50),
    live=st.booleans(),
    plays=st.booleans(),
    longest_s=st.sampled_from([10.0, 30.0, 90.0]),
    interruptible=st.booleans(),
)
def test_whatever_happens_a_call_ends_once_and_in_time(
    facts: list[tuple[str, float]], live: bool, plays: bool, longest_s: float, interruptible: bool
) -> None:
    """Every message to Twilio is exact, no state is without a deadline, the end comes in time and nothing after it."""
    anything = Anything(plays=plays, longest_s=longest_s, interruptible=interruptible)
    call = anything.call
    call.begins()
    if live:
        call.connected()
    for fact, seconds in facts:
        over = call.bridge.next_deadline is None
        before = len(call.all)
        anything.happens(fact, seconds)
        if over:
            assert call.all[before:] == []
        is_closed = any(isinstance(x, c.Close) for x in call.all)
        assert is_closed is (call.bridge.next_deadline is None)
    call.later(longest_s + 60.0)
    assert call.bridge.next_deadline is None
    assert [isinstance(x, c.Close) for x in call.all].count(True) == 1 and isinstance(call.all[-1], c.Close)
    assert sum(isinstance(x, c.HangUp) for x in call.all) <= 1
    assert sum(isinstance(x, c.SaveProgress) and x.end_reason is not None for x in call.all) == 1
