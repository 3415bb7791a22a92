"""A browser's or an SDK's session: one client, one conversation, one dialect.

Counterpart of `handlers/relay.py`, which performs the commands. Canonical audio does not come through here frame by
frame: while `audio_is_open` the relay forwards it and only counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core import errors
from core.commands import URGENT, CheckToken, Command, Note, SendClient, SendClientAudio
from core.conversation import Conversation
from core.dialect import Dialect, for_client, frame_for_client, from_client, rename_audio_delta, rename_words
from core.errors import Ending
from core.flow import UNHEARD, Flow
from core.policy import check
from core.realtime import (
    BadEvent,
    Event,
    encode,
    error_event,
    is_canonical_append,
    notice_event,
    read_audio_delta,
    read_client,
    read_upstream,
)
from core.recovery import Loss

MAX_HELD_BYTES = 1_048_576
"""What a client may send before the upstream is ready: 16 s of PCM16 at 24 kHz as base64, far above the 8 s handshake
limit."""

HELD_OVERHEAD_BYTES = 256
"""What a held event counts besides its text, as in `handlers/early.py`: a flood of tiny ones is bounded too."""

MAX_REFUSALS = 10
REFUSAL_WINDOW_S = 60.0
"""Ten refused messages within a minute are no slip any more: the client is broken or hostile."""

FLOOD_WINDOW_S = 10.0
MAX_EVENTS = 200
MAX_EVENT_BYTES = 1_048_576
"""What a client may send within the window besides audio: twenty events a second are ten times what a person causes,
and more bytes than this would fill the link's buffer (`services/upstream/link.py`) and have it taken for dead."""

TOKEN_NOTICE_S = 60.0
"""How long before its token expires a client is told: time enough for one refresh and one retry."""

MAX_TOKEN_CHARS = 8192
"""Longest token. Source: Supabase reference, section 1.1."""


class BrowserSession:
    """The session of one client.

    Args:
        conversation: Not begun yet.
        dialect: Event names the client speaks.
        resumed: Whether the conversation was there before.
        token_expires_at: When the client's token expires, in seconds of the same clock as `now`; None for never.
        first_events: Own events the client shall see right after `conversation.created`.
    """

    __slots__ = ("_first_events", "_flow", "_held", "_held_bytes", "_is_checking_token", "_recent", "_recent_bytes",
                 "_refusals", "_resumed", "_token_expires_at", "_token_notice_at", "_told_too_early", "conversation",
                 "dialect")  # fmt: skip

    def __init__(
        self,
        conversation: Conversation,
        *,
        dialect: Dialect,
        resumed: bool = False,
        token_expires_at: float | None = None,
        first_events: tuple[Event, ...] = (),
    ) -> None:
        self.conversation = conversation
        self.dialect = dialect
        self._resumed = resumed
        self._first_events = first_events
        self._token_expires_at = token_expires_at
        self._token_notice_at = None if token_expires_at is None else token_expires_at - TOKEN_NOTICE_S
        self._held: list[tuple[Event, int]] = []
        self._held_bytes = 0
        self._told_too_early = False
        self._is_checking_token = False
        self._recent: list[tuple[float, int]] = []
        self._recent_bytes = 0
        self._refusals: list[float] = []
        self._flow = Flow(conversation)

    @property
    def audio_is_open(self) -> bool:
        """True while canonical audio may be forwarded unread in both directions."""
        return self.conversation.is_live and not self._held

    @property
    def next_deadline(self) -> float | None:
        """When `time_passed` wants to be called; None only when the session has ended."""
        if self.conversation.state == "ended":
            return None
        at = self.conversation.deadlines.next
        for other in (self._token_notice_at, self._token_expires_at):
            if other is not None and (at is None or other < at):
                at = other
        return at

    # ------------------------------------------------------------------ the client's side

    def begin(self, now: float) -> list[Command]:
        """Begin the session; call this once."""
        return self.conversation.begin(now)

    def forward_audio(self, frame: bytes, now: float) -> bytes | None:
        """Return canonical audio as it is while the lane is open; None when the frame must be read."""
        is_open = self.conversation.state == "live" and not self._held
        return frame if is_open and is_canonical_append(frame) else None

    def client_received(self, frame: bytes, now: float) -> list[Command]:
        """Take one message of the client.

        Args:
            frame: One text message in UTF-8.
            now: Monotonic time in seconds.

        Returns:
            What to do about it; a refused message leads to an `error` event, too many of them to the end.
        """
        if self.conversation.state == "ended":
            return []
        try:
            event = read_client(frame)
            if event["type"] == "session.refresh":
                return self._refresh(event)
            event = check(from_client(event, self.dialect), self.conversation.plan.agent.client_may)
        except BadEvent as error:
            return self._refuse(error, _event_id(frame), now)
        if not self.conversation.is_live:
            return self._hold(event, len(frame))
        if not _is_audio(event) and self._is_flooding(len(frame), now):
            message = "Too many messages. At most 200, of 1 MiB together, are taken within ten seconds."
            return self._refuse(BadEvent("rate_limit_exceeded", message), event.get("event_id"), now)
        return self._perform(event, now)

    def _is_flooding(self, size: int, now: float) -> bool:
        """Count an event; True when the client has sent too many, or too much, within the window."""
        while self._recent and self._recent[0][0] <= now - FLOOD_WINDOW_S:
            self._recent_bytes -= self._recent.pop(0)[1]
        if len(self._recent) >= MAX_EVENTS or self._recent_bytes + size > MAX_EVENT_BYTES:
            return True
        self._recent.append((now, size))
        self._recent_bytes += size
        return False

    def refuse_binary(self, now: float) -> list[Command]:
        """Take note of a binary message, which no dialect has."""
        return self._refuse(BadEvent("invalid_event", "Messages must be text, not binary."), None, now)

    def notice(self, event: Event) -> list[Command]:
        """Tell the client something of the server's, unless the session has ended."""
        return [] if self.conversation.state == "ended" else [self._told(event)]

    def end(self, ending: Ending, now: float) -> list[Command]:
        """End the session from our side."""
        return self.conversation.end(ending, now)

    def client_left(self, ending: Ending, now: float) -> list[Command]:
        """Take note that the client's socket is gone."""
        return self.conversation.end(ending, now)

    def _perform(self, event: Event, now: float) -> list[Command]:
        try:
            return self.conversation.client_event(event, now)
        except BadEvent as error:
            return [self._error(error, event.get("event_id"))]

    def _hold(self, event: Event, size: int) -> list[Command]:
        """Keep an event until the upstream is ready; when there is too much, the oldest audio goes.

        An event that does not fit is refused; the client is told once, or a flood would be answered with a flood.
        """
        size += HELD_OVERHEAD_BYTES
        self._held.append((event, size))
        self._held_bytes += size
        while self._held_bytes > MAX_HELD_BYTES:
            at = next((n for n, (held, _) in enumerate(self._held) if _is_audio(held)), len(self._held) - 1)
            dropped, dropped_size = self._held[at]
            del self._held[at]
            self._held_bytes -= dropped_size
            if not _is_audio(dropped) and not self._told_too_early:
                self._told_too_early = True
                message = "Too much was sent before the voice service was ready. Wait for session.updated."
                return [self._error(BadEvent("too_early", message), dropped.get("event_id"))]
        return []

    def _release(self, now: float) -> list[Command]:
        commands: list[Command] = []
        while self._held and self.conversation.is_live:
            event, _ = self._held.pop(0)
            commands += self._perform(event, now)
        self._held_bytes = sum(size for _, size in self._held)
        self._told_too_early = False
        return commands

    def _refuse(self, error: BadEvent, event_id: str | None, now: float) -> list[Command]:
        if self.conversation.state == "ended":
            return []
        commands: list[Command] = [
            self._error(error, event_id),
            Note("client event refused", {"code": error.code}, "debug"),
        ]
        self._refusals = [*self._refusals[1 - MAX_REFUSALS :], now]
        if len(self._refusals) == MAX_REFUSALS and now - self._refusals[0] <= REFUSAL_WINDOW_S:
            commands += self.conversation.end(errors.RepeatedViolations.ending, now)
        return commands

    def _told(self, event: Event) -> Command:
        return self.conversation.exchange.told(event)

    def _error(self, error: BadEvent, event_id: str | None) -> Command:
        return self._told(error_event(error.code, str(error), param=error.param, event_id=event_id))

    # ------------------------------------------------------------------ the token

    def _refresh(self, event: Event) -> list[Command]:
        token = event.get("token")
        if (
            not isinstance(token, str)
            or not 0 < len(token) <= MAX_TOKEN_CHARS
            or set(event) - {"type", "token", "event_id"}
        ):
            raise BadEvent("invalid_value", "session.refresh needs the new token.", "token")
        if self._is_checking_token:
            raise BadEvent("not_allowed", "The last token is still being checked.", "token")
        self._is_checking_token = True
        return [CheckToken(token)]

    def token_accepted(self, expires_at: float | None, now: float) -> list[Command]:
        """Take the expiry of a refreshed token of the same user."""
        self._is_checking_token = False
        self._token_expires_at = expires_at
        self._token_notice_at = None if expires_at is None else max(expires_at - TOKEN_NOTICE_S, now)
        return []

    def token_refused(self, now: float) -> list[Command]:
        """Tell the client that its refresh failed; the session lives on until the old token expires."""
        self._is_checking_token = False
        error = BadEvent(
            "invalid_token", "The new token was not accepted. Sign in again and send it once more.", "token"
        )
        return self._refuse(error, None, now)

    # ------------------------------------------------------------------ the upstream's side

    def upstream_opened(self, generation: int, now: float) -> list[Command]:
        """Take note that a link is open."""
        return self.conversation.upstream_opened(generation, now)

    def upstream_lost(self, generation: int, loss: Loss, now: float) -> list[Command]:
        """Take note that a link is gone."""
        return self.conversation.upstream_lost(generation, loss, now)

    def pass_audio(self, frame: bytes, now: float) -> tuple[bytes, ...] | None:
        """Return canonical audio in the client's dialect, nothing when it must not be heard; None for all else."""
        delta = self._flow.audio(frame, now)
        if delta is None:
            return None
        if delta is UNHEARD:
            return ()
        return (frame if self.dialect == "ga" else rename_audio_delta(frame),)

    def pass_words(self, frame: bytes, now: float) -> bytes | None:
        """Return a piece of an answer's transcript in the client's dialect; None for all else."""
        if not self._flow.words(frame, now):
            return None
        return frame if self.dialect == "ga" else rename_words(frame)

    def upstream_received(self, generation: int, frame: bytes, now: float) -> list[Command]:
        """Take one message of the Realtime API that is not canonical audio."""
        event = read_upstream(frame)
        if event is None:
            return [Note("upstream sent what is no event", {"bytes": len(frame)}, "warning")]
        if event["type"] == "response.output_audio.delta":
            return self._unusual_audio(generation, event, now)
        was_live = self.conversation.is_live
        forward, commands = self.conversation.upstream_event(generation, event, now)
        shown = frame_for_client(frame, event, self.dialect) if forward else None
        told: list[Command] = [SendClient(shown, urgent=event["type"] in URGENT)] if shown is not None else []
        if event["type"] == "session.created" and forward:
            told += self._introduce()
        if self.conversation.is_live and not was_live:
            commands = [*commands, *self._release(now)]
        return [*told, *commands]

    def _unusual_audio(self, generation: int, event: Event, now: float) -> list[Command]:
        """Forward audio whose frame has an unusual shape, so that it had to be read."""
        delta = read_audio_delta(event)
        if delta is None or generation != self.conversation.generation:
            return []
        if not self.conversation.audio_received(delta, now):
            return []
        shown = for_client(event, self.dialect)
        return [SendClientAudio(encode(shown))] if shown is not None else []

    def _introduce(self) -> list[Command]:
        """Tell the client which conversation this is; the shape is also a valid event of OpenAI's of that name."""
        conversation_id = self.conversation.plan.conversation_id
        created: Mapping[str, Any] = {
            "type": "conversation.created",
            "conversation_id": conversation_id,
            "resumed": self._resumed,
            "conversation": {"id": conversation_id, "object": "realtime.conversation"},
        }
        first, self._first_events = self._first_events, ()
        return [
            self._told(dict(created)),
            *(self._told(event) for event in first),
        ]

    # ------------------------------------------------------------------ tools and time

    def tool_finished(self, call_id: str, output: str, now: float) -> list[Command]:
        """Take a tool's output."""
        return self.conversation.tool_finished(call_id, output, now)

    def time_passed(self, now: float) -> list[Command]:
        """Act on every deadline that is over."""
        commands: list[Command] = []
        if self.conversation.state == "ended":
            return commands
        if self._token_expires_at is not None and self._token_expires_at <= now:
            commands += self.conversation.end(errors.Unauthorized.ending, now, "The token has expired. Sign in again.")
        elif self._token_notice_at is not None and self._token_notice_at <= now:
            self._token_notice_at = None
            left_s = round((self._token_expires_at or now) - now)
            message = "The token expires soon. Send session.refresh with a new one."
            commands.append(self._told(notice_event("token_expiring", message, expires_in_s=left_s)))
        return [*commands, *self.conversation.time_passed(now)]


def _is_audio(event: Event) -> bool:
    return bool(event["type"] == "input_audio_buffer.append")


def _event_id(frame: bytes) -> str | None:
    """Return the event_id of a message that was refused, if it can be read at all."""
    event = read_upstream(frame)
    event_id = event.get("event_id") if event else None
    return event_id if isinstance(event_id, str) and len(event_id) <= 512 else None
