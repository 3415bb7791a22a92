"""A phone call's session: Twilio's media stream on one side, the conversation on the other.

Mu-law passes through untouched. What Twilio was sent says nothing about what the caller heard, so every piece of audio
is followed by a mark, and the marks that come back move the playout (Twilio reference, section 4). Source of all
message shapes: Twilio reference, section 1.

The end has three steps: the conversation ends and asks for `Close`; the caller hears the last of the goodbye, or the
apology when nobody said why; its mark comes back and the line is released. What the caller does meanwhile changes
nothing, but for hanging up.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import replace

from core import twilio
from core.attendance import Attendance, Step
from core.caller_audio import NO_MEDIA_S, CallerAudio
from core.commands import (
    Close,
    Command,
    DropAudio,
    HangUp,
    Note,
    RunTool,
    SaveProgress,
    SendClient,
    SendClientAudio,
    SendUpstream,
    shown,
)
from core.conversation import Conversation
from core.deadlines import Deadlines
from core.errors import AGENT_ENDED, CLIENT_LEFT, Ending
from core.exchange import AFTER_SPEECH_S
from core.fields import text_of
from core.filler import Filler
from core.flow import UNHEARD, Flow
from core.keypad import Keypad
from core.line import WithoutScreen
from core.marks import MARK_POLL_S, PLAYED_S, Marks
from core.media_reader import MediaReader
from core.realtime import AudioDelta, Event, read_audio_delta, read_upstream
from core.recovery import Loss
from core.transfer import Transfer
from core.twilio import Media, Message
from core.voiced import Voiced


class PhoneBridge(WithoutScreen):
    """The session of one call.

    Args:
        conversation: Not begun yet; its plan says `audio/pcmu`. Its own limits of time and idleness do not hold on a
            call: the agent's call settings do.
        stream_sid: Of the stream, from `start`.
        longest_s: Longest call; the plan's `max_session_s` when that is shorter.
        apology: Raw mu-law, spoken when the call ends by an error.
        piece_ms: Least audio of the caller's that is sent on at a time.
    """

    __slots__ = ("_apology", "_attendance", "_began_at", "_builtins", "_caller", "_deadlines", "_exchange", "_filler",
                 "_flow", "_is_hard", "_is_over", "_keypad", "_marks", "_media_at", "_media_head", "_media_reader",
                 "_parting", "_transfer", "_voiced", "conversation", "stream_sid")  # fmt: skip

    def __init__(
        self, conversation: Conversation, *, stream_sid: str, longest_s: float, apology: bytes, piece_ms: int = 20
    ) -> None:
        self.conversation = conversation
        self.stream_sid = stream_sid
        agent, self._exchange = conversation.plan.agent, conversation.exchange
        settings = agent.call_settings
        self._builtins = {tool.builtin for tool in agent.tools}
        self._attendance = Attendance(settings, self._exchange, min(longest_s, conversation.plan.max_session_s))
        self._keypad = Keypad()
        self._transfer = Transfer(settings.transfer_numbers)
        self._filler = Filler(agent)
        self._caller = CallerAudio(piece_ms)
        self._media_reader = MediaReader(stream_sid)
        self._flow = Flow(conversation)
        self._media_head = b'{"event":"media","streamSid":"' + stream_sid.encode() + b'","media":{"payload":"'
        self._marks = Marks(stream_sid)
        self._voiced = Voiced(self._exchange.playback)
        self._began_at = self._media_at = 0.0
        self._apology = apology
        self._deadlines = Deadlines()
        self._parting: Close | None = None
        self._is_hard = self._is_over = False

    # ------------------------------------------------------------------ the relay's view

    @property
    def next_deadline(self) -> float | None:
        """When `time_passed` wants to be called; None only when the call has ended."""
        if self._is_over or self._parting is not None:
            return self._deadlines.next
        times = (self.conversation.next_deadline, self._attendance.next_at, self._deadlines.next)
        return min((at for at in times if at is not None), default=None)

    def begin(self, now: float) -> list[Command]:
        """Begin the call; call this once."""
        self._began_at = self._media_at = now
        self._attendance.begin(now)
        self._deadlines.set("no_media", now + NO_MEDIA_S)
        commands = self.conversation.begin(now)
        for name in ("time_limit", "time_limit_soon", "idle"):  # attendance speaks before it ends a call
            self.conversation.deadlines.clear(name)
        return self._translated(commands, now)

    def forward_audio(self, frame: bytes, now: float) -> bytes | None:
        """Return audio as the voice service takes it, empty while it is joined; None when the frame must be read."""
        if self.conversation.state != "live":
            return None
        head = self._media_reader.read(frame)
        payload = None if head is None else self._caller.take(head.timestamp_ms, head.payload)
        if payload is None:
            return None
        self._media_at = now
        return twilio.append_from_media(payload) if payload else b""

    def client_received(self, frame: bytes, now: float) -> list[Command]:
        """Take one message of Twilio's that is not plain audio, or audio that cannot simply go on."""
        if self._is_over:
            return []
        if (mark := self._media_reader.mark(frame)) is not None:
            return self._marked(mark, now)
        try:
            message = twilio.read_message(frame)
        except twilio.BadMessage as error:
            return [Note("message of Twilio's not understood", {"about": str(error)}, "warning")]
        return self._translated(self._take(message, now), now)

    def client_left(self, ending: Ending, now: float) -> list[Command]:
        """Take note that Twilio's socket is gone."""
        return [] if self._is_over else self._translated(self._gone(ending, now), now)

    def end(self, ending: Ending, now: float) -> list[Command]:
        """End the call from our side: the caller hears why before the line is released."""
        return self._translated(self.conversation.end(ending, now), now)

    def upstream_opened(self, generation: int, now: float) -> list[Command]:
        """Take note that a link is open."""
        return self._translated(self.conversation.upstream_opened(generation, now), now)

    def upstream_lost(self, generation: int, loss: Loss, now: float) -> list[Command]:
        """Take note that a link is gone."""
        commands = self.conversation.upstream_lost(generation, loss, now)
        return self._translated([*shown(self._marks.behind_last()), *commands], now)

    def pass_audio(self, frame: bytes, now: float) -> tuple[bytes, ...] | None:
        """Return the messages audio becomes, with the mark that belongs behind it; None for all else."""
        delta = self._flow.audio(frame, now)
        if delta is None:
            return None
        if delta is UNHEARD or not delta.payload:
            return ()
        media = self._media_head + frame[-2 - delta.payload : -2] + b'"}}'
        mark = self._mark_behind(delta)
        return (media,) if mark is None else (media, mark)

    def pass_words(self, frame: bytes, now: float) -> bytes | None:
        """Return nothing for a piece of an answer's transcript, which no caller reads; None for all else."""
        return b"" if self._flow.words(frame, now) else None

    def upstream_received(self, generation: int, frame: bytes, now: float) -> list[Command]:
        """Take one message of the Realtime API that is not canonical audio."""
        event = read_upstream(frame)
        if event is None:
            return [Note("upstream sent what is no event", {"bytes": len(frame)}, "warning")]
        if generation != self.conversation.generation:
            return []
        if event["type"] == "response.output_audio.delta":
            return self._unusual_audio(event, now)
        was_live = self.conversation.is_live
        _, commands = self.conversation.upstream_event(generation, event, now)
        if self.conversation.is_live:
            commands = [*commands, *self._follow(event, now)]
        if self.conversation.is_live and not was_live and self._caller:
            commands.append(SendUpstream(twilio.append_from_audio(self._caller.release())))
        return self._translated(commands, now)

    def tool_finished(self, call_id: str, output: str, now: float) -> list[Command]:
        """Take a tool's output."""
        return self._translated(self.conversation.tool_finished(call_id, output, now), now)

    def time_passed(self, now: float) -> list[Command]:
        """Act on every deadline that is over."""
        commands: list[Command] = []
        for name in self._deadlines.over(now):
            commands += self._over(name, now)
        if self.conversation.state == "ended":
            return self._translated(commands, now)
        if self._attendance.next_at is not None and self._attendance.next_at <= now:
            step = self._attendance.time_passed(now, is_live=self.conversation.is_live)
            commands += self._do(step, now)
        return self._translated([*commands, *self.conversation.time_passed(now)], now)

    # ------------------------------------------------------------------ what Twilio says

    def _take(self, message: Message, now: float) -> list[Command]:
        if isinstance(message, twilio.Start):
            return [Note("second start ignored", {}, "warning")]
        if isinstance(message, twilio.Connected | twilio.Unknown) or message.stream_sid != self.stream_sid:
            return []
        if isinstance(message, twilio.Stop):
            return self._gone(CLIENT_LEFT, now)
        if isinstance(message, twilio.Mark):
            return self._mark(message.name, now)
        if self._parting is not None:
            return []
        if isinstance(message, twilio.Dtmf):
            return self._pressed(message.digit, now)
        return self._media(message, now) if message.track == "inbound" else []

    def _media(self, media: Media, now: float) -> list[Command]:
        audio = self._caller.filled(media.timestamp_ms, base64.b64decode(media.payload))
        self._media_at = now
        if audio and self.conversation.is_live:
            return [SendUpstream(twilio.append_from_audio(audio))]
        self._caller.hold(audio)
        return []

    def _pressed(self, digit: str, now: float) -> list[Command]:
        """Take a key; as on any telephone menu it silences the voice that tells what to press."""
        self._attendance.caller_spoke(now)
        cut: list[Command] = []
        if self._marks and self._exchange.interrupts:
            cut = [*self._exchange.cut_in(now), *self._transfer.interrupted(self.conversation, now)]
        return [*cut, *self._keypad.pressed(digit, self.conversation, now)]

    # ------------------------------------------------------------------ what the voice service says

    def _follow(self, event: Event, now: float) -> list[Command]:
        """Act on what the conversation has taken from an event and the line cares about too."""
        kind = event["type"]
        if kind == "input_audio_buffer.speech_started":
            self._attendance.caller_spoke(now)
            self._voiced.speech_started(event)
            return self._transfer.interrupted(self.conversation, now) if self._exchange.interrupts else []
        if kind == "input_audio_buffer.speech_stopped":
            self._attendance.caller_spoke(now)
            self._voiced.speech_stopped(event)
        if kind == "conversation.item.input_audio_transcription.completed":
            step = self._attendance.caller_said(text_of(event, "transcript"), AGENT_ENDED, now)
            return self._do(step, now)
        if kind in {"response.output_audio.done", "response.done"}:
            return shown(self._marks.behind_last())
        return []

    def _unusual_audio(self, event: Event, now: float) -> list[Command]:
        """Forward audio whose frame has an unusual shape, so that it had to be read."""
        delta = read_audio_delta(event)
        if delta is None or not self.conversation.audio_received(delta, now):
            return []
        media = twilio.media_message(self.stream_sid, event["delta"].encode())
        return [SendClientAudio(media), *shown(self._mark_behind(delta))]

    # ------------------------------------------------------------------ what the caller heard

    def _mark_behind(self, delta: AudioDelta) -> bytes | None:
        self._voiced.sent(delta.audio_bytes / twilio.BYTES_PER_MS)
        return self._marks.behind_audio(delta.item_id, self._exchange.playback.sent_ms(delta.item_id))

    def _marked(self, name: str, now: float) -> list[Command]:
        """Take a mark that came back; while nobody waits for the end it moves no deadline."""
        is_ending = self._parting is not None or self._exchange.goodbye_at is not None
        commands = self._mark(name, now)
        return self._translated(commands, now) if is_ending else []

    def _mark(self, name: str, now: float) -> list[Command]:
        """Move the playout by a mark that was played, and whatever waits for its end."""
        played = self._marks.returned(name)
        if played is None:
            return []
        playback, goodbye_at = self._exchange.playback, self._exchange.goodbye_at
        playback.acknowledged(played.item_id, played.played_ms, now)
        if self._parting is not None:
            self._deadlines.set("parting", playback.ends_at(now) + PLAYED_S)
            return [] if self._marks else self._release_line()
        if goodbye_at is not None and goodbye_at < playback.ended_at + AFTER_SPEECH_S:
            self._exchange.goodbye_at = playback.ended_at + AFTER_SPEECH_S
        return []

    def _heard_at(self, now: float) -> float:
        """Return when everything the agent says will have been heard, as far as the marks and the estimate tell."""
        ends_at = self._exchange.playback.ends_at(now)
        is_late = bool(self._marks) and now < self._exchange.playback.ended_at + PLAYED_S
        return max(ends_at, now + MARK_POLL_S) if is_late or self._exchange.sequencer.is_busy else ends_at

    def _cut(self, now: float) -> list[Command]:
        """Empty Twilio's queue; what was heard is known by the marks, so it is settled at once."""
        commands: list[Command] = [DropAudio()]
        if self._marks:
            commands.append(SendClient(twilio.clear_message(self.stream_sid), urgent=True))
            self._voiced.flushed(self._marks.flush(), now)
        return [*commands, *self._exchange.cut_unreported(is_live=self.conversation.is_live)]

    # ------------------------------------------------------------------ time

    def _do(self, step: Step, now: float) -> list[Command]:
        if step.ending is not None:
            self._is_hard = step.is_hard
            return self.conversation.end(step.ending, now)
        if not step.instructions:
            return []
        return self._exchange.speak(step.instructions, now, over_answer=self._attendance.stage == "leaving")

    def _over(self, name: str, now: float) -> list[Command]:
        if name == "no_media" and now < self._media_at + NO_MEDIA_S:
            self._deadlines.set(name, self._media_at + NO_MEDIA_S)
            return []
        actions: dict[str, Callable[[], list[Command]]] = {
            "no_media": lambda: self.conversation.end(CLIENT_LEFT, now),
            "parting": self._release_line,
            "transfer": lambda: self._transfer.due(self.conversation, now, heard_at=self._heard_at(now)),
            "keypad": lambda: self._keypad.due(self.conversation, now),
            "filler": lambda: self._filler.due(self._exchange, now),
        }
        return actions[name]()

    # ------------------------------------------------------------------ commands

    def _translated(self, commands: list[Command], now: float) -> list[Command]:
        """Return the conversation's commands as a phone line takes them."""
        result: list[Command] = []
        for command in commands:
            match command:
                case SendClient() if not command.frame.startswith(b'{"event":'):
                    continue  # events for eyes; a caller has none
                case DropAudio():
                    result += self._cut(now)
                case RunTool(name="transfer_call") if "transfer_call" in self._builtins:
                    result += self._transfer.begin(command, self.conversation, now)
                case RunTool(name="send_dtmf_wait") if "send_dtmf_wait" in self._builtins:
                    result += self._keypad.begin(command, self.conversation, now)
                case RunTool():
                    self._filler.tool_began(command.name, now)
                    result.append(command)
                case SaveProgress():
                    minutes = math.ceil((now - self._began_at) / 60)  # begun minutes count, as on a telephone bill
                    usage = {"voice_minutes": minutes, "voiced_ms": self._voiced.as_json(now)}
                    result.append(replace(command, usage={**command.usage, **usage}))
                case Close():
                    result += self._part(command, now)
                case _:
                    result.append(command)
        if self.conversation.state == "ended":
            return result
        for name, waits in (("transfer", self._transfer), ("keypad", self._keypad), ("filler", self._filler)):
            self._deadlines.set(name, waits.due_at)
        if self._exchange.answers.cut_at is not None:
            # the rest of an answer cut while it was being made: forgotten before the next response is asked for
            result = [*self._exchange.cut_unreported(is_live=self.conversation.is_live), *result]
        self.conversation.arm(now)
        return result

    # ------------------------------------------------------------------ the end

    def _gone(self, ending: Ending, now: float) -> list[Command]:
        """Twilio ended the stream: the caller hung up, or the call goes on elsewhere by our transfer."""
        parting, self._parting, self._is_over = self._parting, None, True
        self._deadlines.clear_all()
        if parting is not None:
            return [parting]
        return self.conversation.end(AGENT_ENDED if self._transfer.is_under_way else ending, now)

    def _part(self, close: Close, now: float) -> list[Command]:
        """Let the caller hear the end, then release the line; at once when nobody is there to hear it."""
        if self._is_over:
            return [close]
        self._deadlines.clear_all()
        self._parting = close
        if self._is_hard or self._transfer.is_under_way or close.ending.end_reason == CLIENT_LEFT.end_reason:
            return self._release_line()
        if close.ending is not AGENT_ENDED and not self._attendance.has_said_goodbye:
            spoken, left_s = self._apologise(now), len(self._apology) / twilio.BYTES_PER_MS / 1000
        else:
            spoken, left_s = shown(self._marks.behind_last()), self._exchange.playback.ends_at(now) - now
        if not self._marks:
            return [*spoken, *self._release_line()]
        self._deadlines.set("parting", now + left_s + PLAYED_S)
        return spoken

    def _apologise(self, now: float) -> list[Command]:
        """Say the clip instead of what is left of an answer."""
        if not self._apology:
            return self._cut(now)
        media = twilio.media_message(self.stream_sid, base64.b64encode(self._apology))
        return [*self._cut(now), SendClient(media), SendClient(self._marks.next())]

    def _release_line(self) -> list[Command]:
        """Hang up, unless the call was handed over; then the socket is all there is to close."""
        close, self._parting, self._is_over = self._parting, None, True
        self._deadlines.clear_all()
        hang_up: list[Command] = [] if self._transfer.is_under_way else [HangUp()]
        return [*hang_up, close] if close is not None else []
