"""The queue in front of one client: bounded, with two lanes, dropping only audio."""

from __future__ import annotations

import pytest

from handlers.outbox import MAX_AUDIO_AGE_S, MAX_QUEUED_BYTES, MAX_WAIT_S, Outbox
from handlers.strict_frames import HIGH_WATER_BYTES

FRAME = bytes(10_000)


class Slow:
    """A sink that takes frames only when `take` is called; misleads in that it holds what it was given."""

    def __init__(self) -> None:
        self.now = 100.0
        self.given: list[bytes] = []
        self.dropped: list[int] = []
        self.stuck = 0
        self.emptied = 0
        self.outbox = Outbox(self, lambda: self.now, on_dropped=self.dropped.append, on_stuck=self.count_stuck)

    def on_room(self) -> None:
        """Stand for what the outbox sets."""

    @property
    def is_full(self) -> bool:
        """True when enough is held."""
        return sum(len(frame) for frame in self.given) >= HIGH_WATER_BYTES

    def send_text(self, frame: bytes) -> None:
        """Hold a frame."""
        self.given.append(frame)

    def count_stuck(self) -> None:
        """Count."""
        self.stuck += 1

    def count_emptied(self) -> None:
        """Count."""
        self.emptied += 1

    def take(self) -> list[bytes]:
        """Take everything that was given until now, and say that there is room."""
        given, self.given = self.given, []
        self.on_room()
        return given

    @property
    def held_bytes(self) -> int:
        """All bytes that wait anywhere."""
        return self.outbox._queued_bytes + sum(len(frame) for frame in self.given)


@pytest.fixture
def slow():
    """Return a sink that takes nothing by itself, and its outbox."""
    return Slow()


def test_frames_of_a_lane_keep_their_order(slow):
    """What is written in order arrives in order, a second of audio at a time."""
    frames = [bytes([n]) * 10_000 for n in range(20)]
    for frame in frames:
        slow.outbox.send_audio(frame)
    assert len(slow.given) == 7  # the first number of frames that reaches 65,536 bytes
    arrived = []
    while slow.given:
        arrived += slow.take()
    assert arrived == frames
    assert slow.outbox.sent_bytes == 200_000


def test_urgent_frame_overtakes_what_waits(slow):
    """An urgent frame is the next one written; frames in flight cannot be overtaken."""
    for _ in range(10):
        slow.outbox.send_audio(FRAME)
    slow.outbox.send(b"urgent", urgent=True)
    slow.take()
    assert slow.take()[0] == b"urgent"


def test_client_that_never_reads_costs_at_most_a_mebibyte(slow):
    """However much is sent, no more than 1 MiB waits (promise P5), and only audio is dropped."""
    for n in range(2_000):
        slow.outbox.send_audio(FRAME)
        if n % 100 == 0:
            slow.outbox.send(b"event %d" % n)
        assert slow.held_bytes <= 1_048_576
    assert sum(slow.dropped) > 1_800 and not slow.stuck
    arrived = []
    while slow.given:
        arrived += slow.take()
    assert [frame for frame in arrived if frame.startswith(b"event")] == [b"event %d" % n for n in range(0, 2000, 100)]


def test_client_that_reads_nothing_that_must_not_be_lost_is_given_up(slow):
    """When undroppable frames alone are too much, the client is reported as stuck, once, and everything forgotten."""
    for _ in range(200):
        slow.outbox.send(FRAME)
        assert slow.held_bytes <= 1_048_576
    assert slow.stuck == 1
    assert slow.outbox._queued_bytes == 0


def test_event_that_waits_too_long_means_the_client_is_gone(slow):
    """An event nobody fetched for half a minute ends the connection."""
    for _ in range(8):
        slow.outbox.send(FRAME)
    slow.now += MAX_WAIT_S + 1
    slow.outbox.send(b"later")
    assert slow.stuck == 1


def test_stale_audio_is_dropped(slow):
    """Audio that waited longer than ten seconds is dropped, fresh audio is not."""
    for _ in range(9):
        slow.outbox.send_audio(FRAME)
    slow.now += MAX_AUDIO_AGE_S + 1
    slow.outbox.send_audio(b"fresh")
    assert slow.dropped == [2]
    slow.take()
    assert slow.take() == [b"fresh"]


def test_audio_larger_than_the_queue_is_dropped_alone(slow):
    """One frame over the bound is dropped without harm to the queue."""
    for _ in range(7):
        slow.outbox.send_audio(FRAME)
    slow.outbox.send_audio(bytes(MAX_QUEUED_BYTES + 1))
    assert slow.dropped == [1] and not slow.stuck
    slow.outbox.send(b"next")
    slow.take()
    assert slow.take() == [b"next"]


def test_interruption_forgets_audio_only(slow):
    """What the person talked over is forgotten without being counted as lost; events stay."""
    for _ in range(8):
        slow.outbox.send_audio(FRAME)
    slow.outbox.send(b"event")
    slow.outbox.drop_audio()
    slow.take()
    assert slow.take() == [b"event"]
    assert slow.dropped == []


def test_finish_waits_for_events_and_takes_nothing_more(slow):
    """The callback comes when every event was handed over, once; audio and what comes later are forgotten."""
    for n in range(10):
        slow.outbox.send(FRAME + b"%d" % n)
    slow.outbox.send_audio(FRAME)
    slow.outbox.finish(slow.count_emptied)
    slow.outbox.send(b"too late", urgent=True)
    assert slow.emptied == 0
    arrived = slow.take()
    assert slow.emptied == 1
    arrived += slow.take()
    assert arrived == [FRAME + b"%d" % n for n in range(10)]
    assert slow.emptied == 1


def test_finish_of_an_idle_outbox_calls_back_at_once(slow):
    """With nothing waiting there is nothing to wait for, not even for a client given up before."""
    slow.outbox.abandon()
    slow.outbox.finish(slow.count_emptied)
    assert slow.emptied == 1


def test_client_that_is_gone_is_written_nothing_more(slow):
    """What waited is forgotten, and neither audio nor events are handed over."""
    for _ in range(10):
        slow.outbox.send(FRAME)
    slow.outbox.abandon()
    slow.take()
    slow.outbox.send(b"more")
    slow.outbox.send_audio(b"sound")
    assert slow.given == [] and slow.held_bytes == 0 and not slow.stuck


def test_audio_goes_straight_through_only_while_nothing_waits(slow):
    """A frame that could overtake another waits with it, also when there is room again."""
    for n in range(8):
        slow.outbox.send(FRAME + b"%d" % n)
    slow.given.clear()  # room, but nobody has said so yet
    slow.outbox.send_audio(b"sound")
    assert slow.given == [FRAME + b"7", b"sound"]


def test_bounds_together_stay_below_a_mebibyte():
    """The queue, what is in flight and one more frame of usual size are within the promise."""
    assert MAX_QUEUED_BYTES + HIGH_WATER_BYTES + 65_536 <= 1_048_576
