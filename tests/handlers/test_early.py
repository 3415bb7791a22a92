"""Messages that come before the session begins."""

from __future__ import annotations

from core.realtime import append_event
from core.session import MAX_HELD_BYTES
from handlers.early import OVERHEAD_BYTES, EarlyMessages

AUDIO = append_event("AAAA" * 5_000)


def test_messages_are_kept_in_order_and_given_once():
    """Texts and notes of binary messages come back as they came, once."""
    early = EarlyMessages()
    for message in (b"one", None, AUDIO, b"two"):
        assert early.keep(message)
    assert early.take() == [b"one", None, AUDIO, b"two"]
    assert early.take() == []


def test_oldest_audio_makes_room():
    """Beyond the bound the oldest audio goes and everything else stays."""
    early = EarlyMessages()
    early.keep(b"first")
    newest = append_event("BBBB" * 5_000)
    for _ in range(100):
        assert early.keep(AUDIO)
    assert early.keep(b"second") and early.keep(newest)
    kept = early.take()
    assert kept[0] == b"first" and kept[-2:] == [b"second", newest]
    assert sum(len(message or b"") for message in kept) <= MAX_HELD_BYTES
    assert len(kept) > 45


def test_what_is_no_audio_is_refused_when_full():
    """Without audio to drop, the newest message is refused and the sender must be told."""
    early = EarlyMessages()
    assert not early.keep(bytes(MAX_HELD_BYTES))
    assert early.keep(bytes(MAX_HELD_BYTES - OVERHEAD_BYTES))
    assert not early.keep(b"x") and not early.keep(None)
    assert len(early.take()) == 1
    assert early.keep(b"x")


def test_many_small_messages_are_bounded():
    """Empty messages cost memory too."""
    early = EarlyMessages()
    assert sum(early.keep(b"") for _ in range(20_000)) == MAX_HELD_BYTES // OVERHEAD_BYTES
