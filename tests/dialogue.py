"""A conversation test as a dialogue: what arrives, and what must come out.

    talk = Dialogue().live()
    talk.client("response.create").gives("model: response.create gw_rc_1")
    talk.model("response.created", response={"id": "r1"}).gives("client: response.created")
    talk.later(0.7).gives("model: truncate i1 at 300 ms")

Facts are `client`, `model`, `tool`, `lost`, `later`; each is answered by commands in a compact notation, see `told`. A
mismatch prints both dialogues. Notes and stored progress are left out unless a step expects one of them; the clock
stands still but for `later`, which stops at every deadline on its way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import singledispatch
from typing import Any

from core import commands as c
from core.agent import Agent, agent_from_row
from core.conversation import Conversation
from core.dialect import Dialect
from core.plan import Plan
from core.realtime import Event, append_event, encode
from core.records import Turn
from core.recovery import Loss
from core.session import BrowserSession

CONVERSATION_ID = "3f0e9c1a-5b7d-4c1e-9a55-0c2f6f1b7a10"
BEGAN = 1000.0
"""The dialogue's clock at the beginning: far from zero, since a monotonic clock may stand anywhere."""

MAX_STEPS = 10_000
"""Deadlines one `later` may meet; more means that one of them is set again and again."""

QUIET = ("note ", "progress ")


def agent(**columns: Any) -> Agent:
    """Return an agent from the columns of its row."""
    return agent_from_row({"id": "a1", "user_id": "u1", **columns})


def plan(**fields: Any) -> Plan:
    """Return a plan; `agent` may be an Agent or columns of one."""
    given = {"conversation_id": CONVERSATION_ID, "voice": "alloy", "model": "gpt-realtime-2.1", **fields}
    who = given.pop("agent", {})
    who = who if isinstance(who, Agent) else agent(**who)
    return Plan(agent=who, transcription_model=given.pop("transcription_model", "gpt-transcribe"), **given)


def base64_of(milliseconds: int, *, bytes_per_ms: int = 48) -> str:
    """Return so much silence as base64; a whole number of base64 groups for every multiple of 3 bytes."""
    return "A" * (milliseconds * bytes_per_ms * 4 // 3)


class Step:
    """What a fact led to."""

    def __init__(self, dialogue: Dialogue, commands: list[c.Command]) -> None:
        self._dialogue = dialogue
        self.commands = commands

    @property
    def events(self) -> list[Event]:
        """Events for the client, in order."""
        return [json.loads(command.frame) for command in self.commands if isinstance(command, c.SendClient)]

    @property
    def sent(self) -> list[Event]:
        """Events for the model, in order."""
        return [json.loads(command.frame) for command in self.commands if isinstance(command, c.SendUpstream)]

    @property
    def turns(self) -> list[Turn]:
        """Turns to store, in order."""
        return [command.turn for command in self.commands if isinstance(command, c.SaveTurn)]

    @property
    def told(self) -> list[str]:
        """Every command in the compact notation."""
        return [told(command) for command in self.commands]

    def gives(self, *expected: str) -> Dialogue:
        """Check that the fact led to exactly these commands, in this order."""
        looked_for = tuple(mark for mark in QUIET if any(text.startswith(mark) for text in expected))
        actual = [text for text in self.told if not text.startswith(QUIET) or text.startswith(looked_for or ("\0",))]
        self._dialogue.compare(list(expected), actual)
        return self._dialogue


class Dialogue:
    """One conversation between a client and the model.

    Args:
        fields: Of the plan; `agent` may be columns of the agent's row.
        dialect: Event names the client speaks.
        history, next_position, resumed, first_events: As the conversation and session take them.
        token_expires_in: Seconds from the beginning; None for never.
    """

    def __init__(
        self,
        fields: Mapping[str, Any] | None = None,
        *,
        dialect: Dialect = "ga",
        history: list[Turn] | None = None,
        next_position: int = 0,
        token_expires_in: float | None = None,
        **session_fields: Any,
    ) -> None:
        self.now = BEGAN
        self.conversation = Conversation(plan(**(fields or {})), history=history, next_position=next_position)
        self.session = BrowserSession(
            self.conversation,
            dialect=dialect,
            token_expires_at=None if token_expires_in is None else BEGAN + token_expires_in,
            **session_fields,
        )
        self.all: list[c.Command] = []
        self._expected: list[str] = []
        self._actual: list[str] = []

    # ------------------------------------------------------------------ facts

    def begins(self) -> Step:
        """Begin the session."""
        return self._fact("the session begins", self.session.begin(self.now))

    def opened(self) -> Step:
        """Report that the link that was asked for is open."""
        return self._fact("the link is open", self.session.upstream_opened(self.generation, self.now))

    def lost(self, cause: str = "closed", *, generation: int | None = None, **fields: Any) -> Step:
        """Report that a link is gone, the current one unless another is named."""
        number = self.generation if generation is None else generation
        return self._fact(f"link {number} {cause}", self.session.upstream_lost(number, Loss(cause, **fields), self.now))

    def client(self, event: str | bytes, **fields: Any) -> Step:
        """Take one message of the client: an event by type and fields, or a frame as it is."""
        frame = event if isinstance(event, bytes) else encode({"type": event, **fields})
        name = frame[:60].decode("utf-8", "replace") if isinstance(event, bytes) else event
        passed = self.session.forward_audio(frame, self.now)
        if passed is not None:
            return self._fact("client: audio", [c.SendUpstream(passed)])
        return self._fact(f"client: {name}", self.session.client_received(frame, self.now))

    def speaks(self, milliseconds: int = 20) -> Step:
        """Take one canonical audio frame of the client."""
        return self.client(append_event(base64_of(milliseconds)))

    def model(self, event: str, *, generation: int | None = None, ms: int | None = None, **fields: Any) -> Step:
        """Take one event of the model; `ms` fills an audio delta, which goes the relay's fast way."""
        number = self.generation if generation is None else generation
        event = event.replace("@", "conversation.item.input_audio_transcription.")
        if ms is not None:
            frame = delta_frame(str(fields["item_id"]), str(fields["response_id"]), ms)
            heard = self.session.pass_audio(frame, self.now) if number == self.generation else ()
            if heard is None:
                return self._fact(f"model: {event}", self.session.upstream_received(number, frame, self.now))
            return self._fact(f"model: {event}", [c.SendClientAudio(passed) for passed in heard])
        frame = encode({"type": event, **fields})
        return self._fact(f"model: {event}", self.session.upstream_received(number, frame, self.now))

    def tool(self, call_id: str, output: str = "done") -> Step:
        """Report a tool's output."""
        return self._fact(f"tool {call_id}", self.session.tool_finished(call_id, output, self.now))

    def later(self, seconds: float) -> Step:
        """Let time pass, and every deadline on the way."""
        until, commands = self.now + seconds, list[c.Command]()
        for _ in range(MAX_STEPS):
            at = self.session.next_deadline
            if at is None or at > until:
                break
            self.now = max(self.now, at)
            commands += self.session.time_passed(self.now)
        else:
            raise AssertionError(f"more than {MAX_STEPS} deadlines within {seconds} s")
        self.now = until
        return self._fact(f"{seconds:g} s later", commands)

    # ------------------------------------------------------------------ whole passages, unchecked

    @property
    def generation(self) -> int:
        """Number of the current link."""
        return self.conversation.generation

    def connected(self, **session: Any) -> Dialogue:
        """Go from a link that was asked for to live."""
        self.opened()
        self.model("session.created", session={"id": "s1", "type": "realtime", **session})
        self.model("session.updated", session={"id": "s1", "type": "realtime", **session})
        return self

    def live(self, **session: Any) -> Dialogue:
        """Begin and go to live."""
        self.begins()
        return self.connected(**session)

    def asks(self, item_id: str, text: str | None = None, *, previous: str | None = None) -> Dialogue:
        """Let the person speak a turn; with a text, its transcription comes at once."""
        self.model("input_audio_buffer.speech_started", item_id=item_id)
        self.model("input_audio_buffer.speech_stopped", item_id=item_id)
        self.model("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous)
        item = {"id": item_id, "type": "message", "role": "user", "content": [{"type": "input_audio"}]}
        self.model("conversation.item.added", item=item, previous_item_id=previous)
        if text is not None:
            self.model("@completed", item_id=item_id, transcript=text)
        return self

    def begins_answer(self, response_id: str, item_id: str, *, modality: str = "audio") -> Dialogue:
        """Let the model begin a response with one message."""
        self.model("response.created", response={"id": response_id, "status": "in_progress", "output": []})
        return self.begins_item(response_id, item_id, modality=modality)

    def begins_item(self, response_id: str, item_id: str, *, modality: str = "audio") -> Dialogue:
        """Let the model begin one more message of a response."""
        item = {"id": item_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        self.model("response.output_item.added", response_id=response_id, item=item)
        self.model("conversation.item.added", item=item)
        self.model("response.content_part.added", response_id=response_id, item_id=item_id, part={"type": modality})
        return self

    def says(self, response_id: str, item_id: str, text: str, ms: int) -> Dialogue:
        """Let the model speak: a piece of text, then its audio."""
        ids = {"response_id": response_id, "item_id": item_id}
        self.model("response.output_audio_transcript.delta", delta=text, **ids)
        self.model("response.output_audio.delta", ms=ms, **ids)
        return self

    def ends_answer(self, response_id: str, status: str = "completed", **fields: Any) -> Step:
        """Let the model end a response."""
        return self.model("response.done", response={"id": response_id, "status": status, **fields})

    def answers(self, response_id: str, item_id: str, text: str, ms: int) -> Dialogue:
        """Let the model answer in one message, faster than it is heard."""
        self.begins_answer(response_id, item_id).says(response_id, item_id, text, ms)
        self.model("response.output_audio_transcript.done", response_id=response_id, item_id=item_id, transcript=text)
        self.ends_answer(response_id)
        return self

    def calls(self, response_id: str, call_id: str | None, name: str, arguments: str = "{}", **fields: Any) -> Step:
        """Let the model call a function."""
        item = {"id": f"item_{call_id}", "type": "function_call", "status": "completed", "call_id": call_id}
        item |= {"name": name, "arguments": arguments, **fields}
        return self.model("response.output_item.done", response_id=response_id, item=item)

    # ------------------------------------------------------------------ the comparison

    def _fact(self, fact: str, commands: list[c.Command]) -> Step:
        self.all += commands
        self._expected.append(fact)
        self._actual.append(fact)
        return Step(self, commands)

    def compare(self, expected: list[str], actual: list[str]) -> None:
        """Keep both sides of the dialogue; fail with both when they differ."""
        self._expected += [f"    {text}" for text in expected]
        self._actual += [f"    {text}" for text in actual]
        if expected != actual:
            wanted, got = "\n".join(self._expected), "\n".join(self._actual)
            raise AssertionError(f"--- the dialogue as it should be\n{wanted}\n--- the dialogue as it was\n{got}")


def delta_frame(item_id: str, response_id: str, milliseconds: int) -> bytes:
    """Return an audio delta in the Realtime API's own order of fields."""
    event = {
        "type": "response.output_audio.delta",
        "event_id": "event_1",
        "response_id": response_id,
        "item_id": item_id,
        "output_index": 0,
        "content_index": 0,
        "delta": base64_of(milliseconds),
    }
    return encode(event)


# ------------------------------------------------------------------ the notation


@singledispatch
def told(command: Any) -> str:
    """Return a command in the compact notation."""
    raise TypeError(f"no notation for {type(command).__name__}")


@told.register
def _(command: c.OpenUpstream) -> str:
    delay = f" after {command.delay_s:g} s" if command.delay_s else ""
    return f"open {command.generation}{delay}{' with a fresh key' if command.refresh_key else ''}"


@told.register
def _(_command: c.CloseUpstream) -> str:
    return "close upstream"


@told.register
def _(command: c.SendUpstream) -> str:
    event = json.loads(command.frame)
    kind = event["type"]
    if kind == "conversation.item.truncate":
        return f"model: truncate {event['item_id']} at {event['audio_end_ms']} ms"
    if kind == "conversation.item.delete":
        return f"model: delete {event['item_id']}"
    if kind == "conversation.item.create":
        return f"model: {_item(event['item'])}"
    if kind in {"response.create", "session.update"}:
        return f"model: {kind} {event['event_id']}"
    return f"model: {kind}"


def _item(item: Event) -> str:
    if item["type"] == "message":
        return f"{item['role']} {item['content'][0]['text']!r}"
    return f"{item['type']} {item['call_id']}"


@told.register
def _(command: c.SendClient) -> str:
    event = json.loads(command.frame)
    if event["type"] == "error":
        return f"client: error {event['error']['code']}"
    if event["type"] == "gateway.notice":
        return f"client: notice {event['code']}"
    return f"client: {event['type']}"


@told.register
def _(command: c.SendClientAudio) -> str:
    return f"client: audio of {json.loads(command.frame)['item_id']}"


@told.register
def _(_command: c.DropAudio) -> str:
    return "drop audio"


@told.register
def _(command: c.SaveTurn) -> str:
    turn = command.turn
    heard = "" if turn.heard_ms is None else f" {turn.heard_ms}/{turn.spoken_ms} ms"
    return f"save {turn.position} {turn.role} {turn.content!r} {turn.status}{heard}"


@told.register
def _(command: c.SaveProgress) -> str:
    return f"progress {command.turn_count} {command.end_reason or 'goes on'}"


@told.register
def _(command: c.RunTool) -> str:
    return f"run {command.name} {command.call_id}"


@told.register
def _(_command: c.CheckToken) -> str:
    return "check token"


@told.register
def _(_command: c.HangUp) -> str:
    return "hang up"


@told.register
def _(_command: c.Redirect) -> str:
    return "redirect"


@told.register
def _(command: c.Note) -> str:
    return f"note {command.event}"


@told.register
def _(command: c.Close) -> str:
    return f"close {command.ending.code} {command.ending.end_reason}"
