"""Answers are stored as they were heard."""

from __future__ import annotations

import pytest

from core.answers import CUT_WAIT_S, HEARD_SLACK_S, Answers
from core.playback import BYTES_PER_MS, Heard, Playback
from core.realtime import AudioDelta
from core.transcript import Transcript

SECOND = AudioDelta("i1", "r1", 64_000, 0)
"""One second of PCM16 at 24 kHz: 48,000 bytes as base64."""


class Scene:
    """Answers with their playout, which begins at 0 without latency."""

    def __init__(self) -> None:
        self.playback = Playback(BYTES_PER_MS["audio/pcm"], latency_s=0.0)
        self.transcript = Transcript()
        self.answers = Answers(self.playback, self.transcript)

    def speaks(self, item_id: str = "i1", seconds: int = 1, *, response: str = "r1", now: float = 0.0) -> list[bool]:
        """Let the model speak an item; returns which frames went to the listener."""
        self.transcript.open(item_id, "assistant")
        self.transcript.wrote(item_id, "one two three four " * seconds)
        return [self.answers.audio(SECOND._replace(item_id=item_id, response_id=response), now) for _ in range(seconds)]


def test_an_answer_is_stored_when_it_was_heard_and_not_when_it_was_sent() -> None:
    """The end of the response says when it will have been heard."""
    scene = Scene()
    assert scene.speaks() == [True]
    assert scene.answers.response_done("r1", "completed", 0.1) == []
    assert scene.answers.heard_at == pytest.approx(1.0 + HEARD_SLACK_S)
    assert scene.answers.is_speaking(0.9)
    assert scene.answers.heard(0.5) == []
    assert scene.answers.heard_at == pytest.approx(1.0 + HEARD_SLACK_S)
    [turn] = scene.answers.heard(1.3)
    assert (turn.content, turn.status, turn.heard_ms) == ("one two three four", "complete", 1000)
    assert scene.answers.heard_at is None
    assert scene.answers.heard(9.0) == []


def test_an_answer_that_was_heard_sets_no_deadline_while_the_next_one_sounds() -> None:
    """What flows now is looked at when its response is done, not all the time."""
    scene = Scene()
    scene.speaks("i1")
    scene.answers.response_done("r1", "completed", 0.1)
    scene.speaks("i2", 5, response="r2", now=1.1)
    [turn] = scene.answers.heard(1.3)
    assert turn.item_id == "i1" and scene.answers.heard_at is None
    scene.answers.response_done("r2", "completed", 1.4)
    assert scene.answers.heard_at == pytest.approx(6.1 + HEARD_SLACK_S)


def test_an_answer_looked_at_within_its_last_millisecond_is_looked_at_again() -> None:
    """A report may move the end to the moment of the look; the answer must not stay open until the session ends."""
    scene = Scene()
    scene.speaks("i1", 3)
    scene.answers.response_done("r1", "completed", 0.1)
    scene.playback.acknowledged("i1", 0, 1.1)
    now = scene.playback.ended_at
    assert scene.answers.heard(now) == []
    assert scene.answers.heard_at == pytest.approx(now + HEARD_SLACK_S)
    assert scene.answers.heard(now + HEARD_SLACK_S) and scene.answers.heard_at is None


def test_an_answer_announced_before_its_response_is_known_finds_it_later() -> None:
    """The order of the two announcements of an item does not matter."""
    scene = Scene()
    scene.answers.began("i1", "", None)
    scene.answers.began("i1", "r1", None)
    scene.answers.began("i1", "r_other", None)
    scene.transcript.finished("i1", "Hello.")
    assert "i1" in scene.answers
    [turn] = scene.answers.response_done("r1", "completed", 0.0)
    assert turn.content == "Hello."


def test_an_interruption_after_the_end_of_the_response() -> None:
    """Most cuts come while the listener still hears what was generated long ago."""
    scene = Scene()
    scene.speaks(seconds=2)
    scene.answers.response_done("r1", "completed", 0.1)
    scene.answers.interrupt(0.5)
    assert scene.answers.cut_at == 0.5 + CUT_WAIT_S
    assert scene.answers.heard(9.0) == []
    heard, [turn] = scene.answers.reported("i1", 400, 0.6)
    assert heard == Heard("i1", 400, 2000)
    assert (turn.content, turn.status, turn.heard_ms, turn.spoken_ms) == ("one two", "interrupted", 400, 2000)
    assert scene.answers.cut_at is None


def test_a_client_that_never_reports_is_answered_for_by_the_estimate() -> None:
    """After the wait the estimate decides; a second interruption in between moves nothing."""
    scene = Scene()
    scene.speaks(seconds=2)
    scene.answers.interrupt(1.0)
    scene.answers.interrupt(1.5)
    assert scene.answers.cut_at == 1.0 + CUT_WAIT_S
    [(heard, [turn])] = scene.answers.unreported()
    assert heard == Heard("i1", 1000, 2000)
    assert turn.heard_ms == 1000
    assert scene.answers.unreported() == []


def test_a_late_report_shortens_and_never_lengthens() -> None:
    """Once a cut was decided the model can be made to forget more; what is stored stays."""
    scene = Scene()
    scene.speaks(seconds=2)
    scene.answers.interrupt(1.0)
    scene.answers.unreported()
    assert scene.answers.reported("i1", 1800, 2.0) == (None, [])
    assert scene.answers.reported("i1", 600, 2.0) == (Heard("i1", 600, 2000), [])
    assert scene.answers.reported("i1", 600, 2.0) == (None, [])


def test_an_early_report_is_an_interruption() -> None:
    """A client that stops the playout by itself cuts everything that waits behind it, too."""
    scene = Scene()
    scene.speaks("i1")
    scene.speaks("i2")
    scene.answers.response_done("r1", "completed", 0.1)
    heard, [turn] = scene.answers.reported("i1", 300, 0.4)
    assert (heard, turn.status) == (Heard("i1", 300, 1000), "interrupted")
    [(rest, turns)] = scene.answers.unreported()
    assert (rest, turns) == (Heard("i2", 0, 1000), [])
    assert not scene.answers.is_speaking(0.5)


def test_an_over_long_report_is_clamped_and_needs_no_truncation() -> None:
    """Nobody hears more than was sent; a whole answer is remembered whole."""
    scene = Scene()
    scene.speaks()
    scene.answers.response_done("r1", "completed", 0.1)
    heard, [turn] = scene.answers.reported("i1", 99_999, 0.5)
    assert heard is None
    assert (turn.status, turn.heard_ms) == ("complete", 1000)


def test_a_listener_behind_the_estimate_is_believed() -> None:
    """The model is told even when the answer was stored as heard; later answers are not cut by that."""
    scene = Scene()
    scene.speaks()
    scene.answers.response_done("r1", "completed", 0.1)
    assert len(scene.answers.heard(1.4)) == 1
    scene.speaks("i2", response="r2", now=2.0)
    assert scene.answers.reported("i1", 700, 2.1) == (Heard("i1", 700, 1000), [])
    assert scene.answers.cut_at is None
    assert scene.answers.is_speaking(2.5)


def test_a_report_on_text_changes_nothing() -> None:
    """What is read cannot be cut; nor can what is not known."""
    scene = Scene()
    scene.answers.began("i1", "r1", None)
    scene.transcript.wrote("i1", "Hello.")
    assert scene.answers.reported("i1", 0, 0.0) == (None, [])
    assert scene.answers.reported("x", 0, 0.0) == (None, [])


def test_a_report_before_the_first_sound_keeps_the_answer_silent() -> None:
    """The client stopped it before it began: nothing of it is heard, stored or remembered."""
    scene = Scene()
    scene.answers.began("i1", "r1", None)
    heard, turns = scene.answers.reported("i1", 0, 0.0)
    assert (heard, turns) == (Heard("i1", 0, 0), [])
    assert scene.speaks() == [False]
    assert scene.answers.response_done("r1", "completed", 1.0) == []
    assert scene.answers.end(9.0) == []


def test_late_audio_of_a_cancelled_response_is_kept_from_the_listener() -> None:
    """It counts as spoken, so that the heard share of the text is right."""
    scene = Scene()
    scene.speaks()
    scene.answers.discard("r1")
    scene.answers.discard(None)
    scene.answers.interrupt(0.5)
    assert scene.speaks(seconds=3, now=0.6) == [False, False, False]
    scene.answers.response_done("r1", "cancelled", 0.6)
    [(heard, [turn])] = scene.answers.unreported()
    assert heard == Heard("i1", 500, 4000)
    assert turn.content == "one two"


def test_a_response_cancelled_before_any_sound_is_forgotten() -> None:
    """Nobody heard it: nothing is stored, and the model must not remember having said it."""
    scene = Scene()
    scene.answers.began("i1", "r1", None)
    entry = scene.transcript.get("i1")
    assert entry is not None
    entry.is_audio, entry.text = True, "Hello."
    assert scene.answers.response_done("r1", "cancelled", 0.0) == []
    assert scene.answers.cut_at == CUT_WAIT_S
    assert scene.answers.unreported() == [(Heard("i1", 0, 0), [])]


def test_a_cancelled_response_whose_sound_was_all_sent_is_heard_to_its_end() -> None:
    """A cancel by the client without a report lets the listener hear what was sent."""
    scene = Scene()
    scene.speaks()
    scene.answers.discard("r1")
    scene.answers.response_done("r1", "cancelled", 0.1)
    assert scene.answers.cut_at is None
    [turn] = scene.answers.heard(1.3)
    assert (turn.status, turn.heard_ms, turn.spoken_ms) == ("interrupted", 1000, 1000)


def test_a_cancelled_response_whose_rest_was_withheld_is_cut_where_it_ends() -> None:
    """What was sent is heard, what was not sent is forgotten."""
    scene = Scene()
    scene.speaks()
    scene.answers.discard("r1")
    scene.speaks(now=0.1)
    scene.answers.response_done("r1", "cancelled", 0.1)
    [(heard, [turn])] = scene.answers.unreported()
    assert heard == Heard("i1", 1000, 2000)
    assert turn.status == "interrupted"


def test_several_items_of_one_response_are_each_cut() -> None:
    """The one heard to its end is whole, the one that plays is cut, the one behind it is deleted."""
    scene = Scene()
    for item_id in ("i1", "i2", "i3"):
        scene.speaks(item_id)
    scene.answers.response_done("r1", "completed", 0.1)
    scene.answers.interrupt(1.5)
    assert [(heard.item_id, heard.heard_ms) for heard, _ in scene.answers.unreported()] == [("i2", 500), ("i3", 0)]
    [turn] = scene.answers.heard(1.6)
    assert (turn.item_id, turn.status) == ("i1", "complete")


def test_a_failed_answer_is_stored_as_failed() -> None:
    """What could be heard of it is kept, with its status."""
    scene = Scene()
    scene.speaks()
    scene.answers.response_done("r1", "failed", 0.1)
    [turn] = scene.answers.heard(1.3)
    assert turn.status == "failed"


def test_a_lost_link_leaves_what_was_sent() -> None:
    """The rest of a running answer never comes; finished and cut ones go on as they were."""
    scene = Scene()
    scene.speaks("i1", response="r1")
    scene.answers.response_done("r1", "completed", 0.1)
    scene.speaks("i2", response="r2")
    scene.answers.discard("r2")
    [turn] = scene.answers.upstream_lost(0.5)
    assert (turn.item_id, turn.status, turn.heard_ms) == ("i2", "interrupted", 1000)
    assert scene.answers.upstream_lost(0.6) == []
    assert [turn.item_id for turn in scene.answers.heard(9.0)] == ["i1"]


def test_the_end_stores_every_answer_as_it_stands() -> None:
    """Cut ones as cut, playing ones as far as they were heard, and no deadline is left."""
    scene = Scene()
    scene.speaks("i1", response="r1")
    scene.answers.response_done("r1", "completed", 0.1)
    scene.answers.interrupt(0.25)
    scene.speaks("i2", response="r2", now=1.0)
    assert [(turn.item_id, turn.heard_ms) for turn in scene.answers.end(1.5)] == [("i1", 250), ("i2", 500)]
    assert scene.answers.cut_at is None
    assert scene.answers.heard_at is None


def test_whether_a_response_said_something() -> None:
    """Speech that was sent and text are words to the person; a silent response has none."""
    scene = Scene()
    scene.speaks("i1", response="r1")
    scene.answers.began("i2", "r2", None)
    scene.transcript.wrote("i2", "Bye.")
    scene.answers.began("i3", "r3", None)
    said = [scene.answers.has_words_of(response) for response in ("r1", "r2", "r3", "r4")]
    assert said == [True, True, False, False]
