"""The caller's audio on its way to the voice service: the media clock, its holes, what is joined and what must wait.

Twilio sends 20 ms at a time, in silence too, and its timestamps jump where audio was lost. A voice activity detection
that is given no bytes cannot hear silence, so holes are filled (Twilio reference, section 1.4).
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64

from core.twilio import BYTES_PER_MS, SILENCE

NO_MEDIA_S = 10.0
"""Twilio sends media in silence too; without any for this long the line is dead (Twilio reference, section 1.4)."""

HELD_BYTES = 80_000
"""Audio kept while there is no voice service to take it: 10 s (Twilio reference, section 2.3)."""

MAX_GAP_MS = 10_000
"""Longest hole that is filled with silence (Twilio reference, section 1.4)."""

MIN_GAP_MS = 20
"""Shortest hole: one frame of Twilio's. Less is a rounding of the timestamps."""

FRAME_BYTES = MIN_GAP_MS * BYTES_PER_MS
"""Audio of one frame of Twilio's."""


class CallerAudio:
    """The audio of one caller; true while some of it waits for the voice service.

    Args:
        piece_ms: Least audio that is sent at a time. Twilio goes on sending in silence too, so what waits to be joined
            never waits longer than the frames it is joined with.
    """

    __slots__ = ("_ends_ms", "_held", "_joined", "_piece_bytes")

    def __init__(self, piece_ms: int = 20) -> None:
        self._ends_ms: int | None = None
        self._held = bytearray()
        self._joined = b""
        self._piece_bytes = piece_ms * BYTES_PER_MS

    def __bool__(self) -> bool:
        return bool(self._held)

    def gap_ms(self, timestamp_ms: int) -> int:
        """Return the milliseconds of silence that belong before a frame, at most `MAX_GAP_MS`."""
        missing = 0 if self._ends_ms is None else timestamp_ms - self._ends_ms
        return min(missing, MAX_GAP_MS) if missing >= MIN_GAP_MS else 0

    def took(self, timestamp_ms: int, audio_bytes: int) -> None:
        """Move the media clock behind a frame; it never goes back."""
        ends_ms = timestamp_ms + audio_bytes // BYTES_PER_MS
        self._ends_ms = max(ends_ms, self._ends_ms or 0)

    def filled(self, timestamp_ms: int, audio: bytes) -> bytes:
        """Return a frame's audio with what comes before it, joined frames and silence; move the media clock."""
        silence = SILENCE * (self.gap_ms(timestamp_ms) * BYTES_PER_MS)
        self.took(timestamp_ms, len(audio))
        return self.take_joined() + silence + audio

    def take(self, timestamp_ms: int, payload: bytes) -> bytes | None:
        """Take a frame that simply goes on; return the base64 of a piece that is long enough, or nothing yet.

        Args:
            timestamp_ms: Of the frame, on the media clock.
            payload: Base64 of mu-law.

        Returns:
            None, and nothing was taken, when the frame does not simply go on: audio is kept that goes first, there is a
            hole before the frame, or it holds no audio.
        """
        ends_ms = timestamp_ms if self._ends_ms is None else self._ends_ms
        if self._held or timestamp_ms - ends_ms >= MIN_GAP_MS or not payload:
            return None
        audio = a2b_base64(payload)
        self._ends_ms = max(ends_ms, timestamp_ms + len(audio) // BYTES_PER_MS)
        if self._piece_bytes <= FRAME_BYTES and not self._joined:
            return payload
        self._joined += audio
        return b2a_base64(self.take_joined(), newline=False) if len(self._joined) >= self._piece_bytes else b""

    def take_joined(self) -> bytes:
        """Return what waits to be joined, and forget it."""
        joined, self._joined = self._joined, b""
        return joined

    def hold(self, audio: bytes) -> None:
        """Keep audio for later; of more than `HELD_BYTES` the oldest is dropped."""
        self._held += audio
        del self._held[:-HELD_BYTES]

    def release(self) -> bytes:
        """Return what was kept, oldest first, and keep it no longer."""
        held = bytes(self._held)
        self._held.clear()
        return held
