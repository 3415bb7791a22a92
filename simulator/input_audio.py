"""The input audio buffer of a session: what was appended, where speech is in it, and what a commit takes out.

Positions are milliseconds over all audio appended in the session, as in the events of the Realtime API.
"""
from __future__ import annotations

from dataclasses import dataclass

from simulator.audio import BYTES_PER_MS, PCM, decode_samples, duration_ms, rms
from simulator.vad import FRAME_MS, OPEN_MS, RMS_AT_DEFAULT_THRESHOLD, Change, SpeechDetector, VadSettings

# A client that never commits must not fill memory: only the last five minutes are kept (14 MB of PCM), and while the
# detector hears nobody only ten seconds, which is more than any sensible `prefix_padding_ms`.
KEPT_MS = 300_000
KEPT_IN_SILENCE_MS = 10_000


@dataclass(frozen=True)
class Started:
    """Speech began; the position includes the prefix padding."""

    audio_start_ms: int


@dataclass(frozen=True)
class Utterance:
    """What a commit took out of the buffer: audio in the input format, its length, and how much of it was loud."""

    audio: bytes
    duration_ms: int
    speech_ms: int


@dataclass(frozen=True)
class Stopped:
    """Speech ended; the position includes the silence that closed it. The utterance has left the buffer."""

    audio_end_ms: int
    utterance: Utterance


class InputAudio:
    """Audio of one session, in its input format."""

    def __init__(self) -> None:
        self.position_ms = 0
        self.speaking_since_ms: int | None = None
        self._detector = SpeechDetector()
        self._format = PCM
        self._buffer = bytearray()
        self._buffer_start_ms = 0
        self._total_bytes = 0
        self._unheard = b""
        self._heard_ms = 0
        self._loud_ms: tuple[int, int] | None = None

    @property
    def buffered_ms(self) -> int:
        """Milliseconds appended since the last commit or clear."""
        return self.position_ms - self._buffer_start_ms

    def append(self, data: bytes, format_type: str, vad: VadSettings | None) -> list[Started | Stopped]:
        """Add audio; return what the detector noticed in it, in order (nothing when `vad` is None)."""
        if format_type != self._format:
            self._restart(format_type)
        self._buffer += data
        self._total_bytes += len(data)
        self.position_ms = duration_ms(self._total_bytes, format_type)
        changes = self._listen(data, vad)
        kept_ms = KEPT_MS if vad is None or self._detector.speaking else KEPT_IN_SILENCE_MS
        if self.buffered_ms > kept_ms:
            self._forget(self.position_ms - kept_ms)
        return changes

    def take(self, until_ms: int | None = None) -> Utterance:
        """Remove and return what is buffered up to a position (default: all), without silence before the speech."""
        end = self.position_ms if until_ms is None else until_ms
        start = max(self._buffer_start_ms, self.speaking_since_ms or 0)
        per_ms = BYTES_PER_MS[self._format]
        first, last = ((ms - self._buffer_start_ms) * per_ms for ms in (start, end))
        audio = bytes(self._buffer[first:last])
        speech_ms = self._loud_ms[1] - self._loud_ms[0] if self._loud_ms else 0
        self._forget(end)
        self._end_speech()
        return Utterance(audio, end - start, speech_ms)

    def clear(self) -> None:
        """Drop everything buffered and any speech in progress; positions go on."""
        self._forget(self.position_ms)
        self._end_speech()

    def _end_speech(self) -> None:
        self._detector.reset()
        self.speaking_since_ms = None
        self._loud_ms = None

    def _forget(self, before_ms: int) -> None:
        del self._buffer[: (before_ms - self._buffer_start_ms) * BYTES_PER_MS[self._format]]
        self._buffer_start_ms = before_ms

    def _restart(self, format_type: str) -> None:
        """Count in another format from here on; what was buffered in the old one is dropped."""
        self.clear()
        self._buffer.clear()
        self._unheard = b""
        self._total_bytes = self.position_ms * BYTES_PER_MS[format_type]
        self._heard_ms = self._buffer_start_ms = self.position_ms
        self._format = format_type

    def _listen(self, data: bytes, vad: VadSettings | None) -> list[Started | Stopped]:
        """Measure every whole 20 ms frame; what is shorter waits for the next append."""
        data = self._unheard + data
        frame_bytes = FRAME_MS * BYTES_PER_MS[self._format]
        whole = len(data) - len(data) % frame_bytes
        self._unheard = data[whole:]
        changes: list[Started | Stopped] = []
        for offset in range(0, whole, frame_bytes):
            loudness = rms(decode_samples(data[offset : offset + frame_bytes], self._format))
            self._heard_ms += FRAME_MS
            if loudness > (vad.rms_threshold if vad else RMS_AT_DEFAULT_THRESHOLD):
                first = self._loud_ms[0] if self._loud_ms else self._heard_ms - FRAME_MS
                self._loud_ms = (first, self._heard_ms)
            if vad:
                changes += self._changes(loudness, vad)
        return changes

    def _changes(self, loudness: float, vad: VadSettings) -> list[Started | Stopped]:
        change = self._detector.hear(loudness, vad)
        if change is Change.STARTED:
            begin = self._heard_ms - OPEN_MS
            self._loud_ms = (begin, self._heard_ms)
            self.speaking_since_ms = max(begin - vad.prefix_padding_ms, self._buffer_start_ms)
            return [Started(self.speaking_since_ms)]
        return [Stopped(self._heard_ms, self.take(self._heard_ms))] if change is Change.STOPPED else []
