"""One line per cause and second; a disk that takes nothing is left alone for a second."""

from __future__ import annotations

from core.log_limits import MAX_REMEMBERED, DiskWatch, RateLimit


def test_first_line_passes_and_the_rest_of_the_second_is_counted() -> None:
    """The first line of a cause passes, later ones within a second do not, the next one knows their number."""
    limit = RateLimit()
    assert [limit.admit(("a",), now) for now in (0.1, 0.2, 1.05, 1.1, 1.2)] == [0, None, None, 2, None]


def test_causes_do_not_hinder_each_other() -> None:
    """Another cause has a second of its own."""
    limit = RateLimit()
    assert limit.admit(("a",), 5.0) == 0
    assert limit.admit(("b",), 5.0) == 0


def test_what_was_never_told_can_be_asked_for_once() -> None:
    """take_suppressed sums what no later line told of, and forgets it."""
    limit = RateLimit()
    for cause in ("a", "a", "a", "b", "b"):
        limit.admit((cause,), 5.0)
    assert limit.take_suppressed() == 3
    assert limit.take_suppressed() == 0


def test_memory_of_causes_is_bounded() -> None:
    """With ever new causes only the latest are remembered."""
    limit = RateLimit()
    for number in range(MAX_REMEMBERED + 10):
        limit.admit((number,), 5.0)
    assert limit.admit((0,), 5.0) == 0
    assert limit.admit((MAX_REMEMBERED + 9,), 5.0) is None


def test_failed_write_gives_the_disk_a_pause() -> None:
    """After a failure lines are counted, not tried, for one second; the first one after it tells the number once."""
    disk = DiskWatch()
    disk.attempt(10.0)
    assert disk.is_open
    disk.failed(10.0)
    disk.attempt(10.5)
    assert not disk.is_open
    assert disk.take_untold() == 0
    disk.attempt(11.0)
    assert disk.is_open
    assert disk.take_untold() == 2
    assert disk.take_untold() == 0
    assert disk.lost_in_all == 2
