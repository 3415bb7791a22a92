"""What a person hears and reads in one browser conversation: turns, answers and their sound.

Fed with the server's events, in either dialect; it waits for nothing and sends nothing. Counterpart of `cli/talker.py`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.dialect import PREVIEW_NAMES
from core.playback import BYTES_PER_MS, Playback

PCM_BYTES_PER_MS = BYTES_PER_MS["audio/pcm"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One finished turn.

    Attributes:
        who: `you` or `agent`.
        text: What was said; of speech, the transcript.
        at_s: Seconds since the conversation was live.
        status: `completed`; of an answer also `cancelled` (interrupted), `incomplete` or `failed`.
    """

    who: str
    text: str
    at_s: float
    status: str = "completed"


@dataclass(slots=True)
class Answer:
    """One response of the agent.

    Attributes:
        delay_ms: From the end of speech (or the typed text) to the first sound; None without either.
        status: See `Turn`; empty while it goes on.
        captions: Words by item, in the order the items began.
        sound: PCM16 by item, cut where the listener interrupted.
    """

    delay_ms: int | None = None
    status: str = ""
    captions: dict[str, str] = field(default_factory=dict)
    sound: dict[str, bytearray] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """All its words."""
        return " ".join(text.strip() for text in self.captions.values() if text.strip())

    @property
    def pcm(self) -> bytes:
        """All its sound."""
        return b"".join(self.sound.values())


class Listener:
    """The listener's memory of one conversation.

    Attributes:
        conversation_id: Empty before the conversation is live.
        is_live: True when the agent listens.
        turns: In the order they were finished.
        answers: In the order they began.
        problems: Messages of `error` events.
        asked_at: When the person last made a sound or sent a text; None before.
        detects_turns: Whether the agent answers by itself when the person falls silent.
    """

    def __init__(
        self,
        *,
        on_turn: Callable[[Turn], None] = lambda turn: None,
        on_caption: Callable[[str], None] = lambda text: None,
        on_notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Begin with nothing heard.

        Args:
            on_turn: Called with each finished turn.
            on_caption: Called with the agent's words so far, while they come.
            on_notice: Called with the text of notices and errors.
        """
        self.conversation_id = ""
        self.is_live = False
        self.turns: list[Turn] = []
        self.answers: list[Answer] = []
        self.problems: list[str] = []
        self.asked_at: float | None = None
        self.detects_turns = True
        self._on_turn, self._on_caption, self._on_notice = on_turn, on_caption, on_notice
        self._live_at = 0.0
        self._speaking, self._unanswered = False, False
        self._untranscribed: set[str] = set()
        self._playback = Playback(PCM_BYTES_PER_MS, latency_s=0.0)

    @property
    def is_quiet(self) -> bool:
        """True when nobody speaks, and everything said so far has its answer."""
        return not self._speaking and not self._unanswered and all(answer.status for answer in self.answers)

    @property
    def is_answered(self) -> bool:
        """True when all is quiet after an answer that said something; a transcript may still come."""
        return self.is_quiet and bool(self.answers) and bool(self.answers[-1].text or self.answers[-1].sound)

    @property
    def is_transcribed(self) -> bool:
        """True when every utterance has its transcript."""
        return not self._untranscribed

    def plays_for_s(self, now: float) -> float:
        """Return how long what has arrived would still be heard."""
        return self._playback.ends_at(now) - now

    def typed(self, text: str, now: float) -> None:
        """Take note of what the person typed."""
        self.asked_at, self._unanswered = now, True
        self._turn("you", text, now)

    def received(self, event: Mapping[str, Any], now: float) -> list[dict[str, Any]]:
        """Take one event of the server.

        Args:
            event: In either dialect; unknown ones are passed over.
            now: Monotonic time in seconds.

        Returns:
            Events to send back, in order: what was heard of answers the person cut short.
        """
        kind = PREVIEW_NAMES.get(event["type"], event["type"])
        if kind == "input_audio_buffer.speech_started":
            return self._interrupted(now)
        handle = getattr(self, f"_on_{kind.replace('.', '_')}", None)
        if handle is not None:
            handle(event, now)
        return []

    # ------------------------------------------------------------------ the person's side

    def _interrupted(self, now: float) -> list[dict[str, Any]]:
        self._speaking = True
        truncated = []
        for item_id in self._playback.interrupt(now):
            heard_ms = self._playback.heard(item_id, now).heard_ms
            for answer in self.answers:
                if item_id in answer.sound:
                    del answer.sound[item_id][heard_ms * PCM_BYTES_PER_MS :]
            truncated.append(
                {"type": "conversation.item.truncate", "item_id": item_id, "content_index": 0, "audio_end_ms": heard_ms}
            )
        return truncated

    def _on_input_audio_buffer_speech_stopped(self, event: Mapping[str, Any], now: float) -> None:
        self._speaking = False

    def _on_input_audio_buffer_committed(self, event: Mapping[str, Any], now: float) -> None:
        self._speaking, self._unanswered = False, True
        self._untranscribed.add(event["item_id"])

    def _on_conversation_item_input_audio_transcription_completed(self, event: Mapping[str, Any], now: float) -> None:
        self._untranscribed.discard(event["item_id"])
        self._turn("you", event.get("transcript", "").strip(), now)

    def _on_conversation_item_input_audio_transcription_failed(self, event: Mapping[str, Any], now: float) -> None:
        self._untranscribed.discard(event["item_id"])
        self._turn("you", "(not transcribed)", now)

    # ------------------------------------------------------------------ the agent's side

    def _on_session_updated(self, event: Mapping[str, Any], now: float) -> None:
        if not self.is_live:
            self.is_live, self._live_at = True, now
        session = event.get("session", {})
        detection = session.get("turn_detection", session.get("audio", {}).get("input", {}).get("turn_detection", {}))
        self.detects_turns = detection is not None

    def _on_conversation_created(self, event: Mapping[str, Any], now: float) -> None:
        self.conversation_id = event.get("conversation_id", "")

    def _on_response_created(self, event: Mapping[str, Any], now: float) -> None:
        self._unanswered = False
        self.answers.append(Answer())

    def _on_response_audio_delta(self, event: Mapping[str, Any], now: float) -> None:
        answer = self._answer()
        pcm = base64.b64decode(event["delta"])
        if answer.delay_ms is None and self.asked_at is not None:
            answer.delay_ms = round((now - self.asked_at) * 1000)
        answer.sound.setdefault(event["item_id"], bytearray()).extend(pcm)
        self._playback.received(event["item_id"], len(pcm), now)

    def _on_response_audio_transcript_delta(self, event: Mapping[str, Any], now: float) -> None:
        answer = self._answer()
        answer.captions[event["item_id"]] = answer.captions.get(event["item_id"], "") + event["delta"]
        self._on_caption(answer.text)

    def _on_response_audio_transcript_done(self, event: Mapping[str, Any], now: float) -> None:
        self._answer().captions[event["item_id"]] = event.get("transcript", "")

    _on_response_text_delta = _on_response_audio_transcript_delta

    def _on_response_done(self, event: Mapping[str, Any], now: float) -> None:
        answer = self._answer()
        answer.status = event["response"].get("status", "completed")
        if answer.text or answer.sound:
            self._turn("agent", answer.text, now, answer.status)

    def _answer(self) -> Answer:
        """Return the answer under way; one that began before we listened counts from here."""
        if not self.answers:
            self.answers.append(Answer())
        return self.answers[-1]

    # ------------------------------------------------------------------ what the server says itself

    def _on_error(self, event: Mapping[str, Any], now: float) -> None:
        error = event["error"]
        self.problems.append(error.get("message", ""))
        self._on_notice(f"{error.get('message', '')} ({error.get('code')})")

    def _on_gateway_notice(self, event: Mapping[str, Any], now: float) -> None:
        self._on_notice(f"{event.get('message', '')} ({event.get('code')})")

    def _turn(self, who: str, text: str, now: float, status: str = "completed") -> None:
        turn = Turn(who, text, round(max(now - self._live_at, 0.0), 2), status)
        self.turns.append(turn)
        self._on_turn(turn)
