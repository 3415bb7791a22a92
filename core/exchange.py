"""What is said: the turns of both sides, the responses, the tool calls, and what they cost.

Handlers are named after the wire events they take, dots turned to underscores. None of them knows about links, states
or limits: `conversation.py` calls them while a link is up and acts on what they leave behind (`goodbye_at`,
`fatal_code`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from core.answers import Answers
from core.commands import Command, DropAudio, Note, RunTool, SaveProgress, optional, saved, send, tell
from core.fields import OWN, is_own, object_of, text_of, typed_text
from core.happenings import Happenings
from core.plan import Plan
from core.playback import BYTES_PER_MS, Playback
from core.pricing import Usage
from core.realtime import FATAL_CODES, AudioDelta, BadEvent, Event, error_event
from core.records import Turn, clean_text
from core.responses import ResponseSequencer, Why
from core.tools import ToolCalls, output_item
from core.transcript import Transcript

GOODBYE_S = 15.0
"""Longest wait for a goodbye to be spoken after the agent decided to end: a long sentence and its generation."""

AFTER_SPEECH_S = 0.4
"""Silence left after the last word, so that it is not clipped by the close."""

GOODBYE_INSTRUCTIONS = "Say goodbye in one short sentence."

REPEAT_INSTRUCTIONS = (
    "You could not hear what was said last. Say so in one short sentence, in the language of the conversation, and ask "
    "for it again."
)
"""For a fresh session after a loss: a question that was not written down in time cannot be given to it."""

KEYS_PRESSED = "[keys pressed]"
"""Stored in place of the digits, which may be a card number or a PIN."""


class Seen(NamedTuple):
    """What an upstream event leads to.

    Attributes:
        forward: Whether the client may see the event.
        commands: To perform in order.
    """

    forward: bool
    commands: list[Command]


class Exchange:
    """The exchange between one person and the model.

    Attributes:
        interrupts: Whether the person's speech cuts the agent's answer.
        replies: Whether the model answers by itself when the person has spoken.
        user_is_speaking: Whether the person speaks at this moment.
        owes_answer: Whether the person said something the model has not answered.
        first_audio_s, last_audio_s: Seconds from the end of the person's first and latest turn to its first sound.
        happenings: Which events came lately; for the operator.
        goodbye_at: When the session ends because the agent said goodbye; None otherwise.
        fatal_code: Code of a failed response that no retry mends.
    """

    __slots__ = ("_failed", "_goodbye", "_own_ids", "_waiting_since", "answers", "calls", "fatal_code", "first_audio_s",
                 "goodbye_at", "happenings", "interrupts", "last_audio_s", "owes_answer", "plan", "playback", "replies",
                 "sequencer", "transcript", "usage", "user_is_speaking")  # fmt: skip

    def __init__(self, plan: Plan, history: list[Turn], next_position: int, usage: Usage) -> None:
        self.plan = plan
        self.transcript = Transcript(history, next_position=next_position)
        self.playback = Playback(BYTES_PER_MS[plan.audio_format])
        self.answers = Answers(self.playback, self.transcript)
        self.sequencer = ResponseSequencer()
        self.calls = ToolCalls()
        self.usage = usage
        self.interrupts = True
        self.replies = True
        self.user_is_speaking = False
        self.owes_answer = False
        self.first_audio_s: float | None = None
        self.last_audio_s: float | None = None
        self.happenings = Happenings()
        self.goodbye_at: float | None = None
        self.fatal_code: str | None = None
        self._goodbye: str | None = None
        self._waiting_since: float | None = None
        self._failed = 0
        self._own_ids = 0

    def own_id(self, kind: str) -> str:
        """Return a fresh id for an event or item of ours."""
        self._own_ids += 1
        return f"{OWN}{kind}_{self._own_ids}"

    def told(self, event: Event) -> Command:
        """Return the command that sends an event of ours to the client, with an id as every Realtime event has one."""
        return tell({**event, "event_id": self.own_id("e")})

    def is_quiet(self, now: float) -> bool:
        """True when nobody speaks, nothing is being answered and no tool runs."""
        busy = self.user_is_speaking or self.sequencer.is_busy or bool(self.calls)
        return not busy and not self.answers.is_speaking(now)

    # ------------------------------------------------------------------ facts

    def audio_received(self, delta: AudioDelta, now: float) -> bool:
        """Count one audio frame; False when it must not reach the listener."""
        is_heard = self.answers.audio(delta, now)
        if is_heard and self._waiting_since is not None:
            self.last_audio_s, self._waiting_since = now - self._waiting_since, None
            self.first_audio_s = self.last_audio_s if self.first_audio_s is None else self.first_audio_s
        return is_heard

    def upstream_lost(self, now: float) -> list[Command]:
        """Close what the lost link will never finish."""
        self.owes_answer = self.owes_answer or self.sequencer.is_busy or bool(self.calls)
        self.fatal_code = None
        self.sequencer = ResponseSequencer()
        self.calls.forget_all()
        self.user_is_speaking = False
        return saved(self.answers.upstream_lost(now))

    def end(self, now: float) -> list[Command]:
        """Store everything that was said until now."""
        return saved([*self.answers.end(now), *self.transcript.close_users()])

    def request(self, why: Why, now: float, fields: Mapping[str, Any] | None = None) -> list[Command]:
        """Ask for a response, at once or when the running one has ended."""
        if why in {"client", "greeting"}:
            self._waiting_since, self.answers.flowing = now, ""
        return optional(self.sequencer.request(why, fields))

    def speak(self, instructions: str, now: float, *, over_answer: bool = False) -> list[Command]:
        """Have a sentence spoken, after the answer that is being given or instead of its rest."""
        commands: list[Command] = []
        active_id = self.sequencer.active_id
        if over_answer and self.sequencer.cancel():
            commands.append(send({"type": "response.cancel", "event_id": self.own_id("x")}))
        if over_answer:
            self.answers.discard(active_id)
            self.answers.interrupt(now)
            commands.append(DropAudio())
        return [*commands, *self.request("say", now, {"instructions": instructions})]

    def keys_pressed(self, digits: str, now: float) -> list[Command]:
        """Tell the model which keys of the telephone were pressed, and have it answer."""
        item_id = self.own_id("k")
        content = [{"type": "input_text", "text": f"The caller pressed {digits} on the telephone's keys."}]
        item = {"id": item_id, "type": "message", "role": "system", "content": content}
        create = send({"type": "conversation.item.create", "event_id": item_id, "item": item})
        turns = self.transcript.said(item_id, KEYS_PRESSED)
        return [create, *saved(turns), *self.request("client", now)]

    def answer_after_loss(self, now: float) -> list[Command]:
        """Ask a fresh session for the answer the lost one owed; what the person said last may be lost with it."""
        is_unknown = self.transcript.next_overdue() is not None
        return self.request("resume", now, {"instructions": REPEAT_INSTRUCTIONS} if is_unknown else None)

    def client_heard(self, item_id: str, heard_ms: int, event_id: str | None, now: float) -> list[Command]:
        """Take the client's report of how much of an answer was heard.

        Raises:
            BadEvent: If there is no such answer.
        """
        if item_id not in self.answers:
            raise BadEvent("item_truncate_invalid_item_id", "There is no such answer to truncate.", "item_id")
        heard, turns = self.answers.reported(item_id, heard_ms, now)
        return [*saved(turns), *([] if heard is None else [self._truncate(item_id, heard.heard_ms, event_id)])]

    def cut_in(self, now: float) -> list[Command]:
        """Take note that the person cut in: nothing more of the answer is heard, and a goodbye is called off."""
        self._goodbye = self.goodbye_at = None
        self.answers.discard(self.sequencer.active_id)
        self.answers.interrupt(now)
        return [DropAudio()]

    def client_cancelled(self, response_id: str | None) -> None:
        """Take note that the client cancels the response that runs; what comes of it late is not for the listener."""
        active_id = self.sequencer.active_id
        if response_id in {None, active_id} and self.sequencer.cancel():
            self.answers.discard(active_id)

    def cut_unreported(self, *, is_live: bool) -> list[Command]:
        """Decide how much was heard of answers the client did not report on."""
        commands: list[Command] = []
        for heard, turns in self.answers.unreported():
            commands += saved(turns)
            if is_live:
                commands.append(self._truncate(heard.item_id, heard.heard_ms, None))
        return commands

    def _truncate(self, item_id: str, heard_ms: int, event_id: str | None) -> Command:
        """Make the model remember only what was heard; an answer of which nothing was heard is deleted."""
        head: Event = {"event_id": event_id or self.own_id("x"), "item_id": item_id}
        if heard_ms <= 0:
            return send({"type": "conversation.item.delete", **head})
        return send({"type": "conversation.item.truncate", **head, "content_index": 0, "audio_end_ms": heard_ms})

    def tool_finished(self, call_id: str, output: str, now: float, *, stored: str | None = None) -> list[Command]:
        """Give a tool's output to the model, and ask for its answer when no other result is awaited.

        While the person speaks nothing is asked for: the model answers by itself when they have ended. `stored` is what
        the transcript keeps in place of an output that nobody else may read.
        """
        call = self.calls.finish(call_id)
        if call is None:
            return []
        item_id = self.own_id("t")
        about = {"name": clean_text(call.name), "call_id": call_id, "arguments": clean_text(call.arguments)}
        commands = saved(self.transcript.ran_tool(call_id, output if stored is None else stored, about))
        item = {"id": item_id, **output_item(call_id, output)}
        commands.append(send({"type": "conversation.item.create", "event_id": item_id, "item": item}))
        is_answered = bool(self.calls) or (self.user_is_speaking and self.replies)
        return commands if is_answered else [*commands, *self.request("tools", now)]

    def replay(self, limit: int) -> list[Command]:
        """Return the commands that tell a fresh session what was said."""
        commands: list[Command] = []
        for item in self.transcript.replay(limit):
            item_id = self.own_id("h")
            create = {"type": "conversation.item.create", "event_id": item_id, "item": {"id": item_id, **item}}
            commands.append(send(create))
        return commands

    # ------------------------------------------------------------------ the person's side

    def on_input_audio_buffer_speech_started(self, event: Event, now: float) -> Seen:
        self.user_is_speaking = True
        return Seen(True, self.cut_in(now) if self.interrupts else [])

    def on_input_audio_buffer_speech_stopped(self, event: Event, now: float) -> Seen:
        self.user_is_speaking = False
        self._waiting_since, self.answers.flowing = now, ""
        return Seen(True, [])

    def on_input_audio_buffer_committed(self, event: Event, now: float) -> Seen:
        self.transcript.committed(text_of(event, "item_id"), text_of(event, "previous_item_id") or None, now)
        self.owes_answer = self.owes_answer or self.replies
        return Seen(True, [])

    def on_conversation_item_added(self, event: Event, now: float) -> Seen:
        item = event.get("item")
        if not isinstance(item, dict) or is_own(item):
            return Seen(False, [])
        item_id, previous = text_of(item, "id"), text_of(event, "previous_item_id") or None
        if item.get("role") == "assistant":
            self.answers.began(item_id, self.sequencer.active_id or "", previous)
        elif typed := typed_text(item):
            return Seen(True, saved(self.transcript.said(item_id, typed, previous_item_id=previous)))
        return Seen(True, [])

    on_conversation_item_created = on_conversation_item_added

    def on_conversation_item_done(self, event: Event, now: float) -> Seen:
        item = event.get("item")
        return Seen(isinstance(item, dict) and not is_own(item), [])

    def on_conversation_item_input_audio_transcription_completed(self, event: Event, now: float) -> Seen:
        self.usage.add_transcription(self.plan.transcription_model, event.get("usage"))
        text = text_of(event, "transcript").strip()
        return Seen(True, saved(self.transcript.said(text_of(event, "item_id"), text or None)))

    def on_conversation_item_input_audio_transcription_failed(self, event: Event, now: float) -> Seen:
        return Seen(True, saved(self.transcript.said(text_of(event, "item_id"), None)))

    # ------------------------------------------------------------------ the model's side

    def on_response_created(self, event: Event, now: float) -> Seen:
        self.sequencer.created(text_of(object_of(event, "response"), "id"))
        if self.sequencer.state == "cancelling":  # it was cancelled before its id was known
            self.answers.discard(self.sequencer.active_id)
        return Seen(True, [])

    def on_response_output_item_added(self, event: Event, now: float) -> Seen:
        item = object_of(event, "item")
        if item.get("type") == "message":
            self.answers.began(text_of(item, "id"), text_of(event, "response_id"), None)
        return Seen(True, [])

    def on_response_content_part_added(self, event: Event, now: float) -> Seen:
        entry = self.transcript.get(text_of(event, "item_id"))
        if entry is not None and object_of(event, "part").get("type") in ("audio", "output_audio"):
            entry.is_audio = True
        return Seen(True, [])

    def on_response_output_audio_transcript_delta(self, event: Event, now: float) -> Seen:
        entry = self.transcript.get(text_of(event, "item_id"))
        if entry is not None:
            entry.is_audio = True
        return self.on_response_output_text_delta(event, now)

    def on_response_output_text_delta(self, event: Event, now: float) -> Seen:
        self.transcript.wrote(text_of(event, "item_id"), text_of(event, "delta"))
        return Seen(True, [])

    def on_response_output_audio_transcript_done(self, event: Event, now: float) -> Seen:
        self.transcript.finished(text_of(event, "item_id"), text_of(event, "transcript"))
        return Seen(True, [])

    def on_response_output_text_done(self, event: Event, now: float) -> Seen:
        self.transcript.finished(text_of(event, "item_id"), text_of(event, "text"))
        return Seen(True, [])

    def on_response_output_item_done(self, event: Event, now: float) -> Seen:
        """Run a finished function call; this event and no other triggers it (reference, section 8.3)."""
        item = object_of(event, "item")
        if item.get("type") != "function_call":
            return Seen(True, [])
        call = self.calls.begin(item, text_of(event, "response_id")) if item.get("status") != "incomplete" else None
        if call is None:
            return Seen(False, [])
        if call.name == "end_call" and any(tool.builtin == "end_call" for tool in self.plan.agent.tools):
            self.calls.finish(call.call_id)
            self._goodbye, self.goodbye_at = call.response_id, now + GOODBYE_S
            return Seen(False, [])
        return Seen(False, [RunTool(call.call_id, call.name, call.arguments)])

    def on_response_done(self, event: Event, now: float) -> Seen:
        response = object_of(event, "response")
        response_id, status = text_of(response, "id"), text_of(response, "status") or "completed"
        self.usage.add_response(self.plan.model, response.get("usage"))
        self.owes_answer = False
        commands = saved(self.answers.response_done(response_id, status, now))
        commands.append(SaveProgress(self.transcript.turn_count, self.usage.as_json(), self.usage.cost_usd))
        if status == "cancelled":
            self._forget_calls(response_id)
        is_goodbye = self._goodbye == response_id or self.sequencer.asked_for == "goodbye"
        said_goodbye = is_goodbye and status != "cancelled"
        fields = self.sequencer.asked_fields
        commands += optional(self.sequencer.done(response_id))
        if status == "failed":
            commands += self._response_failed(response, fields, now)
        else:
            self._failed = 0
        if said_goodbye:
            commands += self._leave_after(response_id, now)
        return Seen(True, commands)

    def _forget_calls(self, response_id: str) -> None:
        """Want nothing more of what a cancelled response decided, not even the end of the talk: the person cut in."""
        self.calls.forget(response_id)
        if self._goodbye == response_id:
            self._goodbye = self.goodbye_at = None

    def _leave_after(self, response_id: str, now: float) -> list[Command]:
        """End when the goodbye was heard; a response that ended the talk without a word is followed by one."""
        has_spoken = self.answers.has_words_of(response_id) or self.answers.is_speaking(now)
        if self._goodbye == response_id and not has_spoken:
            self._goodbye = None
            return self.request("goodbye", now, {"instructions": GOODBYE_INSTRUCTIONS})
        self.goodbye_at = self.playback.ends_at(now) + AFTER_SPEECH_S
        return []

    def _response_failed(self, response: Mapping[str, Any], fields: Mapping[str, Any], now: float) -> list[Command]:
        """Try a failed response once more, unless another one waited for its end anyway; then tell the client."""
        error = object_of(object_of(response, "status_details"), "error")
        code = str(error.get("code") or error.get("type") or "server_error")
        note = Note("response failed", {"code": code}, "warning")
        if code in FATAL_CODES:
            self.fatal_code = code
            return [note]
        self._failed += 1
        if self._failed == 1:
            return [note] if self.sequencer.is_busy else [note, *self.request("retry", now, fields)]
        message = "The agent could not answer. Say it again."
        return [note, self.told(error_event(code, message, kind="server_error"))]
