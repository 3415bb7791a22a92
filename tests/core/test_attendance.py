"""Silence, the presence question, the hang-up, end phrases and the longest call, by the caller's clock."""

from __future__ import annotations

import pytest

from core import commands as c
from core.agent import CallSettings
from core.attendance import AWAY_S, LAST_WORDS_S, POLL_S, Attendance
from core.exchange import GOODBYE_S, Exchange
from core.pricing import Usage
from tests.dialogue import plan
from tests.phone_dialogue import PhoneDialogue

SETTINGS = {
    "silence_timeout_s": 10,
    "presence_delay_s": 3,
    "presence_message": "Anybody there?",
    "hangup_message": "I hang up.",
}
ASKED = "model: response.create Say exactly this sentence, and nothing e"
WARNED = "model: response.create Tell the caller in one short sentence th"
TIME_IS_OVER = "model: response.create Say goodbye in one short sentence: the t"


def silent_call(longest_s: float = 600.0, **settings: object) -> PhoneDialogue:
    """Return a live call with nothing said; a sentence that is asked for is spoken by `spoken`."""
    agent = {"call_settings": {**SETTINGS, **settings}}
    return PhoneDialogue({"greets": False, "agent": agent}, longest_s=longest_s, delay_s=0.0).live()


def asked_for(call: PhoneDialogue) -> str:
    """Return the instructions of the last response that was asked for."""
    creates = [command for command in call.all if isinstance(command, c.SendUpstream)]
    return next(f.frame.decode() for f in reversed(creates) if b"response.create" in f.frame)


def spoken(call: PhoneDialogue, number: int, ms: int = 1000) -> None:
    """Let the model speak what it was asked for."""
    call.answers(f"r{number}", f"i{number}", "As you wish.", ms)


def test_silence_leads_to_a_question_then_to_the_hang_up() -> None:
    """Ten seconds of silence, a question, three more after it was heard, the last message, and the line is released."""
    call = silent_call()
    assert call.until(ASKED) == pytest.approx(10.0)
    assert "Anybody there?" in asked_for(call)
    spoken(call, 1)
    assert call.until(ASKED) == pytest.approx(1.0 + 3.0)
    assert "I hang up." in asked_for(call)
    spoken(call, 2, 1500)
    assert call.until("hang up") == pytest.approx(1.5 + 0.4, abs=0.2)
    assert call.log[-2:] == ["hang up", "close 4008 idle"] and "media 1600 ms" not in call.log
    assert call.bridge.next_deadline is None


def test_without_the_question_silence_ends_the_call() -> None:
    """Agents that do not ask say goodbye at once."""
    call = silent_call(check_presence=False)
    assert call.until(ASKED) == pytest.approx(10.0)
    assert "I hang up." in asked_for(call)


@pytest.mark.parametrize("sign", ["speech", "key"])
def test_a_caller_who_answers_stays(sign: str) -> None:
    """Speech or a key after the question begins the silence anew, with a question before the next hang-up."""
    call = silent_call()
    call.until(ASKED)
    spoken(call, 1)
    call.later(2.0)
    if sign == "speech":
        call.model("input_audio_buffer.speech_started", item_id="u1")
        call.model("input_audio_buffer.speech_stopped", item_id="u1")
        assert call.until(ASKED) == pytest.approx(10.0)
    else:
        call.caller("dtmf", digit="5")
        call.until("model: response.create")
        spoken(call, 2)
        assert call.until(ASKED) == pytest.approx(1.0 + 10.0)
    assert "Anybody there?" in asked_for(call)


def test_a_caller_who_speaks_over_the_hang_up_message_stays() -> None:
    """A call that is leaving for silence goes on."""
    call = silent_call()
    call.until(ASKED)
    spoken(call, 1)
    call.until(ASKED)
    spoken(call, 2, 2000)
    call.later(0.5)
    call.model("input_audio_buffer.speech_started", item_id="u1")
    call.later(5.0)
    call.model("input_audio_buffer.speech_stopped", item_id="u1")
    assert call.until(ASKED) == pytest.approx(10.0)
    assert "Anybody there?" in asked_for(call)


def test_an_answer_that_is_still_being_heard_is_no_silence() -> None:
    """What was generated in a second may play for a minute."""
    call = silent_call()
    spoken(call, 1, 60_000)
    assert call.until(ASKED, within=90.0) == pytest.approx(60.0 + 10.0, abs=0.2)


def test_a_slow_line_counts_from_what_was_heard() -> None:
    """Marks that come back late move the silence."""
    call = silent_call()
    call.twilio.delay_s = 0.8
    for number in range(2):
        call.begins_answer(f"r{number}", f"i{number}").says(f"r{number}", f"i{number}", "Hello.", 3000)
        call.ends_answer(f"r{number}")
    assert call.until(ASKED) == pytest.approx(6.0 + 2 * 0.8 + 10.0, abs=0.1)


def test_a_caller_who_speaks_for_long_is_not_silent() -> None:
    """From the beginning to the end of speech no silence counts."""
    call = silent_call()
    call.model("input_audio_buffer.speech_started", item_id="u1")
    call.later(25.0).gives()
    call.model("input_audio_buffer.speech_stopped", item_id="u1")
    assert call.until(ASKED) == pytest.approx(10.0)


def test_a_tool_that_runs_is_no_silence() -> None:
    """Nor is an answer that is on its way."""
    call = silent_call()
    call.model("response.created", response={"id": "r1"})
    call.calls("r1", "c1", "book")
    call.later(8.0)
    call.ends_answer("r1")
    call.later(20.0).gives()
    call.tool("c1")
    call.model("response.created", response={"id": "r2"})
    call.later(9.0).gives()
    call.ends_answer("r2")
    assert call.until(ASKED) == pytest.approx(10.0, abs=POLL_S)


def test_a_question_that_was_not_spoken_waits_for_its_answer_too() -> None:
    """A response without sound does not make the caller late."""
    call = silent_call()
    call.until(ASKED)
    call.model("response.created", response={"id": "r1"})
    call.ends_answer("r1")
    assert call.until(ASKED) == pytest.approx(3.0, abs=POLL_S)


def test_nobody_is_asked_while_the_voice_service_is_away() -> None:
    """Silence of our own making is not the caller's; it counts anew when the service is back."""
    call = silent_call()
    call.later(9.0)
    call.lost()
    call.later(5.0).gives()
    call.connected()
    assert call.until(ASKED) == pytest.approx(10.0, abs=POLL_S)
    assert "Anybody there?" in asked_for(call)


def test_a_service_that_stays_away_ends_the_call_with_words() -> None:
    """No caller waits in silence for longer than the limit."""
    call = silent_call(silence_timeout_s=4)
    spoken(call, 1, 3000)
    call.lost()
    began = call.until("media 1600 ms")
    assert began == pytest.approx(3.0 + AWAY_S, abs=0.2)
    call.until("hang up")
    assert call.log[-2:] == ["hang up", "close 4502 upstream"]


def test_a_patient_owner_makes_the_wait_longer() -> None:
    """The configured silence is the limit when it is longer."""
    call = PhoneDialogue({"agent": {"call_settings": {"silence_timeout_s": 30}}})
    call.begins()
    assert call.until("media 1600 ms", within=80.0) == pytest.approx(30.0)


# ------------------------------------------------------------------ the longest call


def test_the_end_of_the_time_is_announced_and_said() -> None:
    """Thirty seconds before it the caller is told, at the limit the agent says goodbye, and it is heard."""
    call = silent_call(120.0, silence_timeout_s=1000)
    assert call.until(WARNED, within=200.0) == pytest.approx(90.0)
    assert "ends in 30 seconds" in asked_for(call)
    spoken(call, 1)
    assert call.until(TIME_IS_OVER) == pytest.approx(30.0)
    spoken(call, 2, 2000)
    assert call.until("hang up") == pytest.approx(2.0 + 0.4, abs=0.3)
    assert call.log[-2:] == ["hang up", "close 4008 time_limit"]
    assert "media 1600 ms" not in call.log


def test_a_ten_second_call_has_its_warning_and_its_goodbye() -> None:
    """Short calls are told at two thirds."""
    call = silent_call(10.0)
    assert call.until(WARNED) == pytest.approx(6.667, abs=0.01)
    assert "ends in 3 seconds" in asked_for(call)
    spoken(call, 1, 500)
    assert call.until(TIME_IS_OVER) == pytest.approx(3.333, abs=0.01)
    spoken(call, 2, 1500)
    assert call.until("hang up") == pytest.approx(2.0, abs=0.3)
    assert call.now - 1000.0 < 10.0 + LAST_WORDS_S


def test_the_plan_of_the_session_may_make_a_call_shorter() -> None:
    """The operator's limit holds for calls too."""
    agent = {"call_settings": {"silence_timeout_s": 1000}}
    call = PhoneDialogue({"greets": False, "agent": agent, "max_session_s": 30.0}, longest_s=600.0).live()
    assert call.until(WARNED) == pytest.approx(20.0)


def test_a_caller_is_not_interrupted_by_the_warning() -> None:
    """It waits for a pause; without one it comes when half of the time is gone."""
    call = silent_call(120.0, silence_timeout_s=1000)
    call.later(89.0)
    call.model("input_audio_buffer.speech_started", item_id="u1")
    call.later(7.0).gives()
    call.model("input_audio_buffer.speech_stopped", item_id="u1")
    assert call.until(WARNED) <= POLL_S
    call = silent_call(120.0, silence_timeout_s=1000)
    call.later(89.0)
    call.model("input_audio_buffer.speech_started", item_id="u1")
    assert call.until(WARNED) == pytest.approx(16.0, abs=POLL_S)


def test_last_words_have_a_hard_end() -> None:
    """An agent that talks on after the limit is cut off ten seconds later; nothing is waited for."""
    call = silent_call(60.0, silence_timeout_s=1000)
    call.until(WARNED)
    spoken(call, 0)
    call.until(TIME_IS_OVER)
    spoken(call, 1, 60_000)
    assert call.until("hang up") == pytest.approx(LAST_WORDS_S)
    assert call.bridge.next_deadline is None


def test_a_caller_who_talks_through_the_goodbye_is_let_go() -> None:
    """A goodbye that cannot be heard in quiet ends when its time is over."""
    call = silent_call(60.0, silence_timeout_s=1000)
    call.until(WARNED)
    spoken(call, 0)
    call.until(TIME_IS_OVER)
    spoken(call, 1, 4000)
    call.later(1.0)
    call.model("input_audio_buffer.speech_started", item_id="u1")
    assert call.until("hang up") == pytest.approx(LAST_WORDS_S - 1.0)


def test_the_limit_comes_while_the_service_is_away() -> None:
    """Who cannot be told by the agent is told by the clip."""
    call = silent_call(12.0, silence_timeout_s=1000)
    call.later(11.0)
    call.lost()
    assert call.until("media 1600 ms") == pytest.approx(1.0)
    call.until("hang up")
    assert call.log[-2:] == ["hang up", "close 4008 time_limit"]


def test_a_goodbye_under_way_is_not_begun_again_at_the_limit() -> None:
    """A caller who hears the hang-up message does not hear another."""
    call = silent_call(14.5, silence_timeout_s=10, check_presence=False)
    call.until(WARNED)
    spoken(call, 1, 200)
    before = len(call.all)
    call.later(5.0)
    call.until("hang up", within=30.0)
    assert sum(isinstance(x, c.SendUpstream) and b"response.create" in x.frame for x in call.all[before:]) == 1


def test_a_goodbye_that_is_never_spoken_ends_too() -> None:
    """A stuck voice service does not keep the line; the caller hears the clip."""
    call = silent_call(check_presence=False)
    call.until(ASKED)
    assert call.until("media 1600 ms") == pytest.approx(GOODBYE_S, abs=POLL_S)


# ------------------------------------------------------------------ end phrases


@pytest.mark.parametrize(
    ("said", "leaves"),
    [
        ("Thank you, goodbye!", True),
        ("GOODBYE", True),
        ("That is all, thanks.", True),
        ("That is almost all.", False),
        ("My street is Goodbyestreet.", False),
        ("好的，再见了", True),
        ("", False),
    ],
)
def test_a_phrase_the_owner_chose_ends_the_call(said: str, leaves: bool) -> None:
    """Whole words count, whatever their case and what stands between them; scripts without spaces are searched."""
    call = silent_call(end_call_phrases=["goodbye", "that is all", "再见", "  "])
    step = call.model("@completed", item_id="u1", transcript=said)
    assert any(told.startswith("model: response.create Say goodbye") for told in step.told) is leaves
    if leaves:
        spoken(call, 1)
        call.later(0.5)
        call.model("@completed", item_id="u2", transcript=said)
        call.until("hang up")
        assert call.log[-2:] == ["hang up", "close 1000 agent_ended"]
        assert call.twilio.heard_ms(call.now) == pytest.approx(1000)


def test_a_caller_who_says_a_last_word_is_not_kept() -> None:
    """Who has said the phrase may answer the goodbye; the call ends all the same."""
    call = silent_call(end_call_phrases=["goodbye"])
    call.model("@completed", item_id="u1", transcript="Goodbye.")
    spoken(call, 1, 2000)
    call.later(1.0)
    call.model("input_audio_buffer.speech_started", item_id="u2")
    call.later(0.5)
    call.model("input_audio_buffer.speech_stopped", item_id="u2")
    assert call.until("hang up") == pytest.approx(0.4, abs=POLL_S)
    assert call.log[-1] == "close 1000 agent_ended"


def test_a_phrase_heard_on_an_old_link_means_nothing() -> None:
    """What comes late from a lost link is dropped."""
    call = silent_call(end_call_phrases=["goodbye"])
    call.lost()
    call.model("@completed", generation=1, item_id="u1", transcript="goodbye").gives()
    call.model("@completed", item_id="u1", transcript="goodbye").gives()


def test_before_it_begins_nothing_is_due() -> None:
    """Attendance asks for nothing until the call begins."""
    given = plan()
    attendance = Attendance(CallSettings(), Exchange(given, [], 0, Usage()), 60.0)
    assert attendance.next_at is None and not attendance.has_said_goodbye
