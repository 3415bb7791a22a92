"""Gives a session what arrived on either side, performs its commands in order, arms its one deadline.

There is no await between a fact and the last of its commands: one thing is taken in and acted on whole. Everything slow
(links, tools, tokens, storage) runs in tasks of its own and comes back as a fact.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from core import commands as c
from core.errors import CLIENT_LEFT, Draining, Ending, InternalError, KeyMissing, RepeatedViolations
from core.line import Line
from core.realtime import notice_event
from core.recovery import Loss
from handlers.context import Context, Identity, PhoneLeg
from handlers.ledger import message_row, progress_row
from handlers.outbox import Outbox
from handlers.traced import ResponseSpans
from services.auth import TokenRejected
from services.traces import Trace
from services.upstream import Link, Target, UpstreamError
from services.vault import KeyUnavailable

JITTER = 0.25
"""Share by which waits before a retry are spread, so that sessions lost together do not come back together."""

TIMER_GRAIN_S = 0.001
"""Added to every timer: uvloop's count whole milliseconds and may ring one early. Rung too early, a session would be
asked again and again until its deadline is there, a dozen times for each."""

FLUSH_S = 2.0
"""How long a client that reads slowly may take to fetch what was said before the socket is closed."""

SLOW_READER_NOTICE_S = 10.0
"""Least time between two notices to a client that reads too slowly."""


class Relay:
    """One session at work.

    Args:
        session: The session, not begun yet.
        outbox: Where frames for the client go.
        identity: Who talks with whom, for records and logs.
        context: The services of this process.
        close: Ends the client's socket; called when the outbox is written, and again a little later.
        leg: The call's leg at the telephone company; None for browsers.

    Attributes:
        is_watched: Whether somebody looks at the session's levels; set by whoever does.
        last_in, last_out: The newest audio each way as it came, while the session is watched.
        bytes_in: What the client has sent.
        ending: How the session ended; None before.
    """

    __slots__ = ("__weakref__", "_began", "_close", "_context", "_conversation", "_dropped", "_identity", "_key",
                 "_leg", "_link", "_loop", "_outbox", "_slow_told", "_spans", "_tasks", "_timer", "_timer_at",
                 "bytes_in", "channel", "conversation_id", "ending", "is_watched", "last_in", "last_out", "session",
                 "user_id")  # fmt: skip

    def __init__(
        self,
        session: Line,
        outbox: Outbox,
        identity: Identity,
        context: Context,
        close: Callable[[Ending, str], None],
        *,
        leg: PhoneLeg | None = None,
    ) -> None:
        self.session = session
        self.channel = identity.channel
        self.user_id = identity.user_id
        self.conversation_id = identity.conversation_id
        self._conversation = session.conversation
        self._outbox, self._identity = outbox, identity
        self._context = context
        self._close = close
        self._leg = leg
        self._link: Link | None = None
        self._key: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._began = time.monotonic()
        self._slow_told, self._dropped = 0.0, 0
        self._spans = ResponseSpans(session.conversation)
        self.is_watched = False
        self.last_in = self.last_out = b""
        self.bytes_in = 0
        self.ending: Ending | None = None

    # ------------------------------------------------------------------ facts from the client

    def begin(self) -> None:
        """Begin the session."""
        self._perform(self.session.begin(time.monotonic()))

    def traced_by(self, trace: Trace) -> None:
        """Have links, responses, tools and the end of the session told to a trace; call it before `begin`."""
        self._spans.trace = trace

    def client_received(self, frame: bytes) -> None:
        """Take one text message and never raise; canonical audio goes straight on while the lane is open."""
        try:
            self.bytes_in += len(frame)
            now = time.monotonic()
            audio = self.session.forward_audio(frame, now)
            if audio is None:
                self._perform(self.session.client_received(frame, now))
                return
            if self.is_watched:
                self.last_in = frame
            if audio and self._link is not None and not self._link.send_audio(audio):
                self._context.metrics.dropped("upstream", 1)
        except Exception as error:  # noqa: BLE001 - logged and told by session_failed
            self._context.session_failed(error, self.failed)

    def client_sent_binary(self) -> None:
        """Take note of a binary message."""
        self._perform(self.session.refuse_binary(time.monotonic()))

    def client_left(self, ending: Ending) -> None:
        """Take note that the client's socket is gone or about to be closed by it."""
        self._outbox.abandon()
        self._perform(self.session.client_left(ending, time.monotonic()))

    def end(self, ending: Ending) -> None:
        """End the session from our side."""
        self._perform(self.session.end(ending, time.monotonic()))

    def drain_soon(self, left_s: float) -> None:
        """Tell the client that the server restarts."""
        message = "The server restarts soon. Finish the talk or connect again with the conversation_id."
        self._perform(self.session.notice(notice_event("draining", message, left_s=round(left_s))))

    def drain_now(self) -> None:
        """End the session because the server stops."""
        self.end(Draining.ending)

    def replaced(self) -> None:
        """End the session because the same conversation goes on over another socket."""
        self.end(CLIENT_LEFT)

    def audio_dropped(self, frames: int) -> None:
        """Take note that the client reads too slowly; it is told now and then."""
        self._dropped += frames
        self._context.metrics.dropped("client", frames)
        now = time.monotonic()
        if now - self._slow_told >= SLOW_READER_NOTICE_S:
            self._slow_told = now
            message = "The connection is too slow; some audio was left out."
            self._perform(self.session.notice(notice_event("slow_reader", message)))

    def client_is_stuck(self) -> None:
        """End the session of a client that reads nothing."""
        self.end(RepeatedViolations.ending)

    # ------------------------------------------------------------------ facts from the upstream

    def _hearing(self, generation: int) -> Callable[[bytes], None]:
        """Return what takes the messages of one link: canonical audio goes straight on, the rest is read."""
        session, conversation, outbox, spans = self.session, self._conversation, self._outbox, self._spans

        def hear(frame: bytes) -> None:
            try:
                if generation != conversation.generation:
                    return
                now = time.monotonic()
                messages = session.pass_audio(frame, now)
                if messages is None:
                    words = session.pass_words(frame, now)
                    if words is None:
                        self._perform(session.upstream_received(generation, frame, now))
                        if spans.trace.is_on:
                            spans.look()
                    elif words:
                        outbox.send(words)
                    return
                if self.is_watched:
                    self.last_out = frame
                if messages:
                    outbox.send_audio(messages[0])
                    if len(messages) > 1:
                        outbox.send(messages[1])
            except Exception as error:  # noqa: BLE001 - logged and told by session_failed
                self._context.session_failed(error, self.failed)

        return hear

    def _upstream_lost(self, generation: int, loss: Loss) -> None:
        if generation == self._conversation.generation:
            self._link = None
            self._perform(self.session.upstream_lost(generation, loss, time.monotonic()))

    # ------------------------------------------------------------------ commands

    def _perform(self, commands: list[c.Command]) -> None:
        for command in commands:
            self._do(command)
        self._arm()

    def _do(self, command: c.Command) -> None:
        match command:
            case c.SendClient():
                self._outbox.send(command.frame, urgent=command.urgent)
            case c.SendUpstream():
                if self._link is not None:
                    self._link.send(command.frame)
            case c.SaveTurn():
                self._context.save(message_row(self._identity, command.turn))
            case c.SaveProgress():
                self._context.save(progress_row(self._identity, command))
            case c.DropAudio():
                self._outbox.drop_audio()
            case c.SendClientAudio():
                self._outbox.send_audio(command.frame)
            case c.Note():
                fields = {"channel": self.channel, "conversation_id": self.conversation_id, **command.fields}
                self._context.log(command.level, command.event, **fields)
            case c.OpenUpstream():
                self._link = None
                self._start(self._open(command), f"open-upstream-{command.generation}")
            case c.CloseUpstream():
                link, self._link = self._link, None
                if link is not None:
                    link.close()
            case c.RunTool():
                self._start(self._run_tool(command), "tool")
            case c.CheckToken():
                self._start(self._check_token(command.token), "check-token")
            case c.HangUp():
                if self._leg is not None:
                    self._context.start(self._leg.hang_up(), f"hang-up-{self.conversation_id}")  # outlives the session
            case c.Redirect():
                if self._leg is not None:
                    self._start(self._leg.redirect(command.twiml), "redirect")
            case c.Close():
                self._finish(command.ending, command.message)
            case _:
                raise TypeError(f"no such command: {type(command).__name__}")

    # ------------------------------------------------------------------ slow things, each a task that brings a fact

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._context.start(work, f"{name}-{self.conversation_id}", tasks=self._tasks, failed=self.failed)

    def failed(self) -> None:
        """End the session because a callback or a task of it met a bug of ours."""
        self._context.attempt(lambda: self.end(InternalError.ending), self._give_up)
        self._give_up()

    def _give_up(self) -> None:
        """Give back what is held when not even ending works, or the end itself was what failed."""
        if self.ending is not None:
            return
        self._do(c.CloseUpstream())
        self._finish(InternalError.ending, "")
        self._disarm()

    def _safely(self, act: Callable[[], None]) -> None:
        self._context.attempt(act, self.failed)

    async def _open(self, command: c.OpenUpstream) -> None:
        generation, services = command.generation, self._context
        if command.delay_s:
            await asyncio.sleep(command.delay_s * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - spreading
        began, span = time.monotonic(), self._spans.trace.begin("upstream.connect", generation=generation)
        try:
            self._key = await services.key_for(
                self._conversation.plan.agent, self._key if command.refresh_key else None
            )
            target = Target(self._key, self._conversation.plan.model, self._identity.safety_identifier)
            link = await services.upstream.open(target)
        except KeyUnavailable as error:
            services.log("error", "no API key", step=error.step, mend=error.how_to_mend)
            span.end(outcome="no_key")
            self.end(KeyMissing.ending)
            return
        except UpstreamError as error:
            services.upstream_failed(error.loss.cause)
            span.end(outcome=error.loss.cause)
            self._upstream_lost(generation, error.loss)
            return
        span.end(outcome="open")
        if generation != self._conversation.generation or self.ending is not None:
            link.close()
            return
        self._link = link
        services.upstream_connected(time.monotonic() - began, again=generation > 1)
        self._perform(self.session.upstream_opened(generation, time.monotonic()))
        lost = partial(self._upstream_lost, generation)
        link.listen(self._hearing(generation), lambda loss: self._safely(partial(lost, loss)), self._outbox.burst)

    async def _run_tool(self, command: c.RunTool) -> None:
        agent, span = self._conversation.plan.agent, self._spans.trace.begin("execute_tool")
        result = await self._context.toolbox.run(agent, command.name, command.arguments, call_id=command.call_id)
        span.end(kind=result.kind, outcome=result.outcome)
        self._context.metrics.tool_called(result.kind, result.outcome, result.seconds)
        about = {"kind": result.kind, "outcome": result.outcome, "detail": result.detail or None}
        self._context.log(
            "info", "tool called", conn=self._identity.connection_id, seconds=round(result.seconds, 3), **about
        )
        self._perform(self.session.tool_finished(command.call_id, result.output, time.monotonic()))

    async def _check_token(self, token: str) -> None:
        try:
            user = await self._context.verifier.verify(token)
        except TokenRejected:
            user = None
        now = time.monotonic()
        if user is None or user.id != self.user_id:
            self._perform(self.session.token_refused(now))
        else:
            self._perform(self.session.token_accepted(now + user.expires_at - time.time(), now))

    # ------------------------------------------------------------------ time and the end

    def _arm(self) -> None:
        """Have `time_passed` called at the session's next deadline; a timer that rings too early asks anew."""
        at = self.session.next_deadline
        if at is not None and self._timer_at is not None and at >= self._timer_at:
            return
        self._disarm()
        if at is not None:
            self._timer_at = at
            wait_s = max(0.0, at - time.monotonic()) + TIMER_GRAIN_S
            self._timer = self._loop.call_later(wait_s, self._safely, self._time_passed)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timer_at = None

    def _time_passed(self) -> None:
        self._timer = self._timer_at = None
        self._perform(self.session.time_passed(time.monotonic()))

    def _finish(self, ending: Ending, message: str) -> None:
        """The last phase; it runs once, whatever the end."""
        if self.ending is not None:
            return
        self.ending = ending
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._context.connections.remove(self)
        self._report(ending)
        close = partial(self._close, ending, message)
        self._outbox.finish(close)
        self._loop.call_later(FLUSH_S, close)  # closing twice is closing once

    def _report(self, ending: Ending) -> None:
        """Write the one line of a conversation, and count it."""
        conversation, duration_s = self._conversation, time.monotonic() - self._began
        exchange = conversation.exchange
        first = exchange.first_audio_s
        cost_usd = exchange.usage.cost_usd - self._identity.cost_before_usd
        trace = self._spans.trace
        self._context.session_ended(self.channel, ending.end_reason, first, cost_usd)
        self._context.log(
            "info" if ending.side in {"client", "limit"} or ending.is_normal else "warning",
            "conversation ended",
            channel=self.channel,
            conn=self._identity.connection_id,
            conversation_id=self.conversation_id,
            agent_id=self._identity.agent_id,
            user_id=self.user_id,
            duration_s=round(duration_s, 1),
            turns=exchange.transcript.turn_count,
            bytes_in=self.bytes_in,
            bytes_out=self._outbox.sent_bytes,
            dropped=self._dropped,
            first_audio_ms=None if first is None else round(first * 1000),
            reconnects=conversation.reconnects,
            cost_usd=round(cost_usd, 4),
            close=ending.code,
            end_reason=ending.end_reason,
            side=ending.side,
            **({"trace_id": trace.trace_id} if trace.is_on else {}),
        )
        trace.end(
            failed=ending.side not in {"client", "limit"} and not ending.is_normal,
            gen_ai__conversation__id=self.conversation_id,
            gen_ai__agent__id=self._identity.agent_id,
            turns=exchange.transcript.turn_count,
            cost_usd=round(cost_usd, 4),
            first_audio_s=first,
            reconnects=conversation.reconnects,
            close_code=ending.code,
            end_reason=ending.end_reason,
        )
