"""A phone call as a dialogue: caller, model, caller, and what Twilio does with what it is sent.

    call = PhoneDialogue({"agent": {"greeting": "Hello."}}).live()
    call.caller("media", ms=20).gives("model: audio 20 ms")
    call.model("response.output_audio.delta", item_id="i1", response_id="r1", ms=200).gives("media 200 ms", "mark g1:1")
    call.later(0.1)
    call.model("input_audio_buffer.speech_started").gives("drop audio", "clear", "model: truncate i1 at 100 ms")

Every message to Twilio is held against the exact schema. `Twilio` plays what it is sent at a true clock and returns
the marks, `later` stops at each of them; meanwhile the line carries the caller's silence. Without `plays` nothing comes
back and marks are given by hand.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from core import commands as c
from core.bridge import PhoneBridge
from core.conversation import Conversation
from core.errors import CLIENT_LEFT, Ending
from core.realtime import Event, encode
from core.records import Turn
from tests.dialogue import BEGAN, MAX_STEPS, Dialogue, Step, plan, told

STREAM_SID = "MZ" + "0" * 32
APOLOGY = bytes(range(256)) * 50
"""1.6 s of mu-law."""

TICK_S = 1.0
"""How often `later` lets the line carry the caller's silence, a second at a time."""

_MARK = re.compile(r"g[0-9]+:[0-9]+")


def mulaw(milliseconds: int, seed: int = 0) -> bytes:
    """Return so much mu-law in which every byte value occurs."""
    return bytes((seed + n * 7) % 256 for n in range(milliseconds * 8))


def checked(frame: bytes) -> Event:
    """Return a message to Twilio; it must have exactly the documented fields."""
    message: Event = json.loads(frame)
    assert message.pop("streamSid") == STREAM_SID, frame[:80]
    event = message.pop("event")
    if event == "media":
        assert set(message) == {"media"} and set(message["media"]) == {"payload"}, frame[:80]
        assert base64.b64decode(message["media"]["payload"], validate=True), "a message without audio"
    elif event == "mark":
        assert set(message) == {"mark"} and set(message["mark"]) == {"name"}, frame[:80]
        assert _MARK.fullmatch(message["mark"]["name"]), frame
    else:
        assert (event, message) == ("clear", {}), frame[:80]
    return {"event": event, **message}


class Twilio:
    """Plays a queue at a true clock.

    Args:
        delay_s: Way of a message in one direction; a message travels without jitter.
    """

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.played: list[tuple[float, float]] = []
        self.names: list[str] = []
        self._marks: list[tuple[float, float, str]] = []
        self._ends = 0.0

    def took(self, frame: bytes, now: float) -> None:
        """Take one message."""
        message, now = checked(frame), now + self.delay_s
        if message["event"] == "media":
            begins = max(now, self._ends)
            self._ends = begins + len(base64.b64decode(message["media"]["payload"])) / 8000
            self.played.append((begins, self._ends))
        elif message["event"] == "mark":
            name = message["mark"]["name"]
            assert name not in self.names, "a mark's name is given twice"
            self.names.append(name)
            at = max(now, self._ends)
            self._marks.append((at + self.delay_s, at, name))
        else:
            self.played = [(begins, min(ends, now)) for begins, ends in self.played if begins < now]
            self._ends = min(self._ends, now)
            self._marks = [(min(back, now + self.delay_s), min(at, now), name) for back, at, name in self._marks]

    def due(self) -> float | None:
        """Return when the next mark arrives at our side."""
        return self._marks[0][0] if self._marks else None

    def mark(self) -> str:
        """Return the next mark."""
        return self._marks.pop(0)[2]

    def heard_ms(self, now: float) -> float:
        """Return how much the caller has heard of everything by now."""
        return sum(max(min(ends, now) - begins, 0) for begins, ends in self.played) * 1000


class PhoneStep(Step):
    """What a fact led to, with Twilio's messages in the notation."""

    @property
    def told(self) -> list[str]:
        """Every command in the compact notation."""
        return [_told(command) for command in self.commands]


def _told(command: c.Command) -> str:
    if isinstance(command, c.SendClient | c.SendClientAudio):
        message = checked(command.frame)
        if message["event"] == "media":
            return f"media {len(base64.b64decode(message['media']['payload'])) // 8} ms"
        return f"mark {message['mark']['name']}" if message["event"] == "mark" else "clear"
    if isinstance(command, c.SendUpstream) and command.frame.startswith(b'{"type":"input_audio_buffer.append"'):
        return f"model: audio {len(base64.b64decode(json.loads(command.frame)['audio'])) // 8} ms"
    if isinstance(command, c.SendUpstream) and json.loads(command.frame)["type"] == "response.create":
        response = json.loads(command.frame).get("response", {})
        return f"model: response.create {response.get('instructions', '')[:40]}".strip()
    if isinstance(command, c.HangUp):
        return "hang up"
    if isinstance(command, c.Redirect):
        return f"redirect {command.twiml}"
    return told(command)


class PhoneDialogue(Dialogue):
    """One call.

    Args:
        fields: Of the plan; `agent` may be columns of the agent's row.
        longest_s: Longest call.
        plays: Whether Twilio plays what it is sent and returns the marks.
        delay_s: Way to Twilio in one direction.
        history: As the conversation takes it.
        apology: Raw mu-law.
    """

    def __init__(
        self,
        fields: Mapping[str, Any] | None = None,
        *,
        longest_s: float = 600.0,
        plays: bool = True,
        delay_s: float = 0.05,
        history: list[Turn] | None = None,
        apology: bytes = APOLOGY,
    ) -> None:
        self.now = BEGAN
        given = {"channel": "phone", "audio_format": "audio/pcmu", "greets": True, **(fields or {})}
        self.conversation = Conversation(plan(**given), history=history)
        self.bridge = PhoneBridge(self.conversation, stream_sid=STREAM_SID, longest_s=longest_s, apology=apology)
        self.session = self.bridge  # type: ignore[assignment]
        self.twilio = Twilio(delay_s)
        self.plays = plays
        self.carries = True
        self.media_ms = 0
        self.all: list[c.Command] = []
        self._expected: list[str] = []
        self._actual: list[str] = []
        self._carried_at = BEGAN
        self._sequence = 0

    # ------------------------------------------------------------------ facts

    def caller(self, event: str | bytes, *, ms: int = 20, at_ms: int | None = None, **fields: Any) -> PhoneStep:
        """Take one message of Twilio's.

        Args:
            event: `media`, `mark`, `dtmf`, `start`, `stop` or any other name, or a frame as it is.
            ms: Length of the audio of `media`; its timestamp is the end of the audio before it, unless `at_ms` says.
        """
        frame = event if isinstance(event, bytes) else self._message(event, ms, at_ms, fields)
        audio = self.bridge.forward_audio(frame, self.now)
        commands = [c.SendUpstream(audio)] if audio is not None else self.bridge.client_received(frame, self.now)
        return self._fact(f"caller: {event[:40]!r}", commands)

    def _message(self, event: str, ms: int, at_ms: int | None, fields: Mapping[str, Any]) -> bytes:
        self._sequence += 1
        body: Event = dict(fields)
        stream_sid = body.pop("stream_sid", STREAM_SID)
        if event == "media":
            at_ms = self.media_ms if at_ms is None else at_ms
            self.media_ms = at_ms + ms
            payload = base64.b64encode(body.pop("audio", mulaw(ms))).decode()
            body = {"track": "inbound", "chunk": "1", "timestamp": str(at_ms), "payload": payload} | body
        elif event == "stop":
            body = {"accountSid": "AC1", "callSid": "CA1"}
        elif event == "start":
            kind = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
            body = {"streamSid": stream_sid, "accountSid": "AC1", "callSid": "CA1", "tracks": [], "mediaFormat": kind}
        number = str(self._sequence)
        return encode({"event": event, "sequenceNumber": number, event: body, "streamSid": stream_sid})

    def model(self, event: str, *, generation: int | None = None, ms: int | None = None, **fields: Any) -> Step:
        """Take one event of the model; `ms` or `audio` fills an audio delta, which goes the relay's fast way."""
        number = self.generation if generation is None else generation
        audio = fields.pop("audio", None)
        if ms is None and audio is None:
            return super().model(event, generation=generation, **fields)
        payload = base64.b64encode(mulaw(ms or 0) if audio is None else audio).decode()
        ids = {"event_id": "event_1", "response_id": fields["response_id"], "item_id": fields["item_id"]}
        frame = encode({"type": event, **ids, "output_index": 0, "content_index": 0, "delta": payload})
        messages = self.bridge.pass_audio(frame, self.now) if number == self.generation else ()
        if messages is None:
            return self._fact(f"model: {event}", self.bridge.upstream_received(number, frame, self.now))
        return self._fact(f"model: {event}", [c.SendClient(message) for message in messages])

    def leaves(self, ending: Ending = CLIENT_LEFT) -> PhoneStep:
        """Let Twilio's socket go away."""
        return self._fact("the socket is gone", self.bridge.client_left(ending, self.now))

    def ends(self, ending: Ending) -> PhoneStep:
        """End the call from our side."""
        return self._fact(f"we end: {ending.end_reason}", self.bridge.end(ending, self.now))

    def later(self, seconds: float) -> PhoneStep:
        """Let time pass: deadlines, marks that come back, the caller's silence."""
        until, before = self.now + seconds, len(self.all)
        for _ in range(MAX_STEPS):
            at, act = self._next()
            if act is None or at > until:
                break
            self.now = max(self.now, at)
            act()
        else:
            raise AssertionError(f"more than {MAX_STEPS} things happened within {seconds} s")
        self.now = until
        return PhoneStep(self, self.all[before:])

    def until(self, text: str, *, within: float = 60.0) -> float:
        """Let time pass until a command comes whose notation begins so; returns how long it took."""
        began, seen = self.now, len(self.all)
        while self.now - began < within:
            at, act = self._next()
            if act is None:
                break
            self.now = max(self.now, at)
            act()
            if any(_told(command).startswith(text) for command in self.all[seen:]):
                return self.now - began
        came = "\n".join(self.log[-30:])
        raise AssertionError(f"{text!r} did not come within {within} s, but at last\n{came}")

    def _next(self) -> tuple[float, Any]:
        """Return what happens next, and when."""
        things: list[tuple[float, Any]] = []
        if (at := self.bridge.next_deadline) is not None:
            things.append((at, self._time_passes))
            if self.carries:
                things.append((self._carried_at + TICK_S, self._carry))
        if self.plays and (at := self.twilio.due()) is not None:
            things.append((at, lambda: self.caller("mark", name=self.twilio.mark())))
        return min(things, key=lambda thing: thing[0], default=(0.0, None))

    def _time_passes(self) -> None:
        self._fact(f"at {self.now - BEGAN:.2f} s", self.bridge.time_passed(self.now))
        at = self.bridge.next_deadline
        assert at is None or at > self.now, "a deadline that is over is set again"

    def _carry(self) -> None:
        """Let the line carry what was silent since the last time, unnoticed by the dialogue."""
        ms = round((self.now - self._carried_at) * 1000)
        self._carried_at = self.now
        frame = self._message("media", ms, None, {"audio": b"\xff" * ms * 8})
        if self.bridge.forward_audio(frame, self.now) is None:
            self.all += self.bridge.client_received(frame, self.now)

    # ------------------------------------------------------------------ whole passages, unchecked

    def greets(self, text: str = "Hello, who is there?", ms: int = 1000) -> PhoneDialogue:
        """Let the model speak the greeting it was asked for."""
        self.answers("r0", "i0", text, ms)
        return self

    def hears(self, item_id: str = "u1", text: str | None = "Well.") -> PhoneDialogue:
        """Let the model hear a turn of the caller's."""
        self.asks(item_id, text)
        return self

    @property
    def log(self) -> list[str]:
        """Everything that came out, in the notation."""
        return [_told(command) for command in self.all]

    @property
    def turns(self) -> list[tuple[str, str, str]]:
        """Role, text and status of every stored turn."""
        turns = [command.turn for command in self.all if isinstance(command, c.SaveTurn)]
        return [(turn.role, turn.content, turn.status) for turn in turns]

    # ------------------------------------------------------------------ the comparison

    def _fact(self, fact: str, commands: list[c.Command]) -> PhoneStep:
        self.all += commands
        step = PhoneStep(self, commands)
        self._expected.append(fact)
        self._actual.append(fact)
        for command in commands:
            if isinstance(command, c.SendClient | c.SendClientAudio):
                self.twilio.took(command.frame, self.now)
        return step
