"""The simulated person: ear, mouth, keys and script, tick by tick without a clock."""
from __future__ import annotations

from itertools import pairwise

from simulator.twilio_caller import Action, Caller, HangUp, Keys, Speak, at, heard, polite, quiet
from simulator.twilio_record import CallRecord
from tests.fakes.phone_server import TONE

HUSH = b"\xff" * 160


class Person:
    """A caller, and when they did what: ticks of 20 ms."""

    def __init__(self, *script: Action) -> None:
        self.record = CallRecord("CA1", "AC1", "+1", "+2")
        self.hung_up: list[int] = []
        self.tick = 0
        self.caller = Caller(self.record, script, lambda: self.hung_up.append(self.tick))

    def hear(self, sound: bytes, seconds: float) -> list[bytes]:
        """Hear a sound for so long; return what was said."""
        said = []
        for _ in range(round(seconds * 50)):
            said.append(self.caller.exchange(sound))
            self.tick += 1
        return said


def test_caller_speaks_and_hangs_up_at_fixed_times() -> None:
    """`at` counts from the answer, in ticks of 20 ms; a last piece is filled up with silence."""
    person = Person(Speak(b"\x11" * 200, at(0.1)), HangUp(at(0.5)))
    said = person.hear(HUSH, 0.6)
    assert said[5:7] == [b"\x11" * 160, b"\x11" * 40 + b"\xff" * 120]
    assert set(said[:5] + said[7:]) == {HUSH}
    assert person.hung_up == [25]
    assert bytes(person.record.said) == b"".join(said)


def test_caller_interrupts_after_so_much_heard_speech() -> None:
    """`heard` counts speech only, since the last action."""
    person = Person(Speak(TONE, heard(0.2)))
    assert set(person.hear(HUSH, 0.5)) == {HUSH}
    assert set(person.hear(TONE, 0.18)) == {HUSH}
    assert person.hear(TONE, 0.02) == [TONE]


def test_interruption_replaces_what_is_still_being_said() -> None:
    """A person who cuts in begins anew; the silence at the end of a recording does not hold them up."""
    person = Person(Speak(TONE + HUSH * 100), Speak(TONE, heard(0.2)))
    said = person.hear(TONE, 0.4)
    assert [number for number, frame in enumerate(said) if frame == TONE] == [0, 10]
    assert len([entry for entry in person.record.timeline if entry.event == "caller_speaks"]) == 2


def test_caller_answers_when_the_other_side_is_quiet() -> None:
    """`quiet` needs speech first, and then so much silence."""
    person = Person(Speak(TONE, quiet(0.5)))
    assert set(person.hear(HUSH, 2)) == {HUSH}
    assert set(person.hear(TONE, 1)) == {HUSH}
    said = person.hear(HUSH, 0.6)
    assert said.index(TONE) in range(24, 27)


def test_patient_caller_speaks_when_nobody_does() -> None:
    """Patience counts from the end of the caller's own last words."""
    person = Person(Speak(TONE * 10, quiet(0.5, patience_s=1)), HangUp(quiet(0.5, patience_s=1)))
    person.hear(HUSH, 4)
    assert bytes(person.record.said).index(TONE) == 50 * 160
    assert person.hung_up[0] in range(109, 113)


def test_keys_are_pressed_four_a_second() -> None:
    """Each key once, in order, also those pressed by hand."""
    person = Person(Keys("12", at(0)))
    person.caller.press("3")
    when = []
    for tick in range(60):
        person.caller.exchange(HUSH)
        while person.caller.keys:
            when.append((tick, person.caller.keys.popleft()))
    assert sorted(digit for _, digit in when) == ["1", "2", "3"]
    assert {later - earlier for (earlier, _), (later, _) in pairwise(when)} == {12}


def test_polite_script_hears_everything_out() -> None:
    """Greeting, pause, question, answer, pause, hang-up."""
    person = Person(*polite(TONE * 10))
    for sound, seconds in ((TONE, 1.0), (HUSH, 1.0), (TONE, 1.0), (HUSH, 2.0)):
        person.hear(sound, seconds)
    assert len(person.hung_up) == 1
    assert [entry.event for entry in person.record.timeline] == [
        "agent_speaks", "agent_silent", "caller_speaks", "caller_silent", "agent_speaks", "agent_silent",
    ]


def test_dead_line_is_silence_in_the_record() -> None:
    """Time that passes without a stream keeps both sides of the record aligned."""
    person = Person(HangUp(at(1.0)))
    person.caller.pass_time(60)
    assert len(person.record.heard) == len(person.record.said) == 60 * 160
    person.hear(HUSH, 0.02)
    assert person.hung_up == [0]
