"""Marks say what was played, and only once."""

from __future__ import annotations

import json

from core.marks import MAX_MARKS, Marks, Played


def name_of(message: bytes) -> str:
    """Return the name in a mark message."""
    name = json.loads(message)["mark"]["name"]
    assert isinstance(name, str)
    return name


def test_a_mark_that_comes_back_says_what_was_played() -> None:
    """Names are unique; a mark speaks for those before it, and no mark speaks twice."""
    marks = Marks("MZ1")
    names = [name_of(marks.next("i1", ms)) for ms in (100, 200, 300)]
    assert names == ["g1:1", "g1:2", "g1:3"]
    assert marks.returned("g1:2") == Played("i1", 200)
    assert marks.returned("g1:2") is None and marks.returned("g1:1") is None
    assert marks
    assert marks.returned("g1:3") == Played("i1", 300)
    assert not marks


def test_flushed_marks_say_nothing() -> None:
    """After a flush the marks of the older generation are ignored, and names go on unlike any before."""
    marks = Marks("MZ1")
    marks.next("i1", 100)
    marks.next("i2", 100)
    assert marks.flush() == {"i1", "i2"}
    assert not marks
    assert name_of(marks.next("i3", 50)) == "g2:3"
    assert marks.returned("g1:1") is None
    assert marks.returned("g2:3") == Played("i3", 50)


def test_foreign_names_are_ignored() -> None:
    """A mark somebody else named says nothing."""
    assert [Marks("MZ1").returned(name) for name in ("", "responsePart", "g1:1", "g1:x")] == [None] * 4


def test_the_number_of_marks_out_is_bounded() -> None:
    """Of a line that returns no marks the oldest are forgotten."""
    marks = Marks("MZ1")
    for _ in range(MAX_MARKS + 1):
        marks.next()
    assert marks.returned("g1:1") is None
    assert marks.returned("g1:2") == Played("", 0)


def test_pieces_of_an_answer_share_marks() -> None:
    """The first piece has a mark, then every fifth of a second, and the last."""
    marks = Marks("MZ1")
    asked = [marks.behind_audio("i1", ms) for ms in range(20, 260, 20)]
    assert [ms for ms, mark in zip(range(20, 260, 20), asked, strict=True) if mark is not None] == [20, 220]
    last = marks.behind_last()
    assert last is not None and marks.behind_last() is None
    assert marks.returned(name_of(last)) == Played("i1", 240)


def test_each_answer_begins_with_a_mark() -> None:
    """Also one that follows another at once."""
    marks = Marks("MZ1")
    first, second = marks.behind_audio("i1", 20), marks.behind_audio("i2", 20)
    assert first is not None and second is not None
    assert marks.returned(name_of(second)) == Played("i2", 20)


def test_a_line_that_plays_as_fast_as_it_is_spoken_to_needs_no_more_marks() -> None:
    """Whether a mark came back before the next piece was sent changes nothing."""
    marks = Marks("MZ1")
    asked = 0
    for ms in range(20, 1020, 20):
        mark = marks.behind_audio("i1", ms)
        if mark is not None:
            asked += 1
            assert marks.returned(name_of(mark)) == Played("i1", ms)
    assert asked == 5


def test_audio_without_a_mark_of_its_own_is_out_too() -> None:
    """It counts as out although every mark has come back, and is flushed with the rest."""
    marks = Marks("MZ1")
    first = marks.behind_audio("i1", 20)
    assert first is not None and marks.behind_audio("i1", 40) is None
    marks.returned(name_of(first))
    assert marks
    assert marks.flush() == {"i1"} and not marks and marks.behind_last() is None
