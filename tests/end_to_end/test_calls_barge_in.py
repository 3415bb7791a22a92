"""Cutting in: how soon the agent is silent, what is kept of its answer, and what of it the model remembers.

All calls of this file are made at the same time on one server; each test looks at one. What was heard is counted in
frames at the caller's ear of the simulated Twilio.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from simulator.audio import PCMU, decode_samples, rms
from simulator.twilio_caller import HangUp, Speak, heard, quiet
from simulator.twilio_ear import FRAME_BYTES, stretches
from simulator.vad import FRAME_MS, Change, SpeechDetector, VadSettings
from tests.fakes.phone_gateway import SPEECH, Made, PhoneGateway, Ring, length
from tests.handlers.conftest import assert_settled

STANDSTILL_S = 0.3
"""Longest standstill of a busy machine that is forgiven in a single measurement."""

LONG_GREETING = "Good morning, this is the very long greeting of a place that has a lot to say before you may speak."

RINGS: Mapping[str, Ring] = {
    "cut": Ring(
        {"instructions": "[test long answer]"},
        [Speak(SPEECH, quiet(0.6)), Speak(SPEECH, heard(2.0)), HangUp(heard(0.8))],
    ),
    "cut twice": Ring(
        {"instructions": "[test long answer]"},
        [Speak(SPEECH, quiet(0.6)), Speak(SPEECH, heard(1.0)), Speak(SPEECH, heard(1.4)), HangUp(heard(0.6))],
    ),
    "cut greeting": Ring({"greeting": LONG_GREETING}, [Speak(SPEECH, heard(1.0)), HangUp(quiet(1.0))]),
    "protected": Ring(
        {"greeting": LONG_GREETING, "call_settings": {"allow_interruptions": False}},
        [Speak(SPEECH, heard(1.0)), HangUp(quiet(2.5))],
    ),
}


class Interruption(NamedTuple):
    """Which utterance of which call cuts an answer, and which of the stored cut answers that is."""

    call: str
    utterance: int
    answer: int


CUTS = (
    Interruption("cut", 1, 0), Interruption("cut greeting", 0, 0),
    Interruption("cut twice", 1, 0), Interruption("cut twice", 2, 1),
)  # fmt: skip


@pytest.fixture(scope="module")
def calls() -> Iterator[dict[str, Made]]:
    """Every call of this file, made at the same time; when they are over the server holds nothing of them."""
    with PhoneGateway(RINGS) as gateway:
        made = gateway.ring_all()
        yield made
        for call in made.values():
            assert call.record.rejected == []
            assert call.record.warnings == []
        assert_settled(gateway, 3.0, ())


class Cut(NamedTuple):
    """An answer that the caller cut; all in seconds of the call, counted in frames and not by the clock.

    Attributes:
        began: When the caller heard the first of it.
        opened: When the model's voice detection opened on what the caller said.
        silent: When the caller heard the last of it.
    """

    began: float
    opened: float
    silent: float


def cut_by(call: Made, utterance: int) -> Cut:
    """Return the answer that was cut by what the caller said at that place of the call."""
    spoken = stretches(bytes(call.record.said))[utterance]
    answer = next(stretch for stretch in call.speech if stretch.begins_s < spoken.begins_s < stretch.ends_s)
    return Cut(answer.begins_s, opened_at(call, spoken.begins_s - 0.1), answer.ends_s)


def opened_at(call: Made, after_s: float) -> float:
    """Return when the voice detection opened: the simulated model's own detector, fed with what the line carried."""
    detector, settings = SpeechDetector(), VadSettings(600.0, 300, 500)
    said = bytes(call.record.said)
    for number in range(round(after_s * 1000 / FRAME_MS), len(said) // FRAME_BYTES):
        frame = decode_samples(said[number * FRAME_BYTES : (number + 1) * FRAME_BYTES], PCMU)
        if detector.hear(rms(frame), settings) is Change.STARTED:
            return (number + 1) * FRAME_MS / 1000
    raise AssertionError("the caller did not speak")


def assert_mostly_below(seconds: list[float], limit_s: float) -> None:
    """Assert that half of the measurements keep the limit, and that none is far from it.

    Server, simulators and test share one process: when the machine takes it off the processor, every clock in it
    stands still and what was measured just then is longer.
    """
    assert sorted(seconds)[(len(seconds) - 1) // 2] <= limit_s, seconds
    assert max(seconds) <= limit_s + STANDSTILL_S, seconds


def interrupted(call: Made) -> list[dict[str, Any]]:
    """Return the stored answers that were cut."""
    return [row for row in call.messages if row["status"] == "interrupted"]


def test_cutting_in_silences_the_agent_at_once(calls: dict[str, Made]) -> None:
    """Within 200 ms of the moment the voice detection opens, which takes 60 ms of speech, the caller hears nothing.

    What is measured: from the end of the frame that opened the detection, as it left the caller, to the last frame with
    a voice in it that reached the ear. The way through the telephone network is not in it.
    """
    found = [cut_by(calls[cut.call], cut.utterance) for cut in CUTS]
    assert_mostly_below([cut.silent - cut.opened for cut in found], 0.2)


def test_nothing_is_blurted_out_after_the_cut(calls: dict[str, Made]) -> None:
    """The rest of the cut answer never reaches the ear, though the model had sent seconds of it."""
    call = calls["cut"]
    opened = cut_by(call, 1).opened
    following = [stretch for stretch in call.speech if stretch.begins_s > opened]
    assert following and following[0].begins_s - opened > 1.0  # the caller's own 0.9 s and the pause come first
    assert call.record.clears and any(mark.flushed for mark in call.record.marks)
    names = [mark.name for mark in call.record.marks]
    assert len(set(names)) == len(names)


def test_the_stored_answer_ends_where_the_caller_stopped_hearing(calls: dict[str, Made]) -> None:
    """`heard_ms` is what the ear recorded, within 150 ms, of the second interruption as of the first."""
    errors_s = []
    for cut in CUTS:
        found, stored = cut_by(calls[cut.call], cut.utterance), interrupted(calls[cut.call])[cut.answer]
        errors_s.append(abs(stored["heard_ms"] / 1000 - (found.silent - found.began)))
        assert stored["heard_ms"] < stored["spoken_ms"]
    assert_mostly_below(errors_s, 0.15)
    content = interrupted(calls["cut"])[0]["content"]
    assert content.startswith("I will count to thirty. one,") and "ten" not in content


def test_the_model_remembers_what_was_heard_and_no_more(calls: dict[str, Made]) -> None:
    """The truncation the model is told is the stored `heard_ms`."""
    call = calls["cut"]
    (session,) = call.sessions
    (truncation,) = session.events("conversation.item.truncate")[:1]
    cut = interrupted(call)[0]
    assert (truncation["item_id"], truncation["audio_end_ms"]) == (cut["item_id"], cut["heard_ms"])


def test_a_greeting_may_be_cut(calls: dict[str, Made]) -> None:
    """Who knows what they want need not hear the greeting out."""
    greeting = calls["cut greeting"].messages[0]
    assert greeting["status"] == "interrupted" and greeting["heard_ms"] < greeting["spoken_ms"] - 1_000


def test_a_protected_greeting_is_heard_out(calls: dict[str, Made]) -> None:
    """With `allow_interruptions` off the caller's voice cuts nothing, and is answered afterwards."""
    call = calls["protected"]
    greeting = call.messages[0]
    assert (greeting["status"], greeting["content"]) == ("complete", LONG_GREETING)
    assert call.record.clears == []
    assert length(call.speech[0]) * 1000 > greeting["spoken_ms"] - 800
    assert "(speech, 0.9 seconds)" in call.said("user")
