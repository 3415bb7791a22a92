"""The telephone's door `/api/twilio/media-stream`.

Who calls is known only at `start`: until then a socket costs nothing, is counted, and lives five seconds.
Source: Twilio reference, sections 1 to 3.
"""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from pathlib import Path

from core import twilio
from core.agent import Agent
from core.bridge import PhoneBridge
from core.calls import TRANSFERRED, Call
from core.conversation import Conversation
from core.errors import (
    CLIENT_LEFT,
    AgentNotFound,
    AtCapacity,
    BadRequest,
    Ending,
    GatewayError,
    InternalError,
    Unauthorized,
)
from core.overrides import configured_agent
from core.plan import Plan
from core.realtime import Event
from core.records import ConversationRow
from core.twiml import stream_url
from handlers.base import Door
from handlers.context import Context, Identity
from handlers.incoming import claimed_call
from handlers.ledger import wall_clock
from handlers.leg import TwilioLeg
from handlers.relay import Relay

START_S = 5.0
"""Longest wait for `start` (Twilio reference, section 0, rule 14)."""

CLAIM_S = 5.0
"""Longest time to find out whose call it is; the caller hears nothing meanwhile."""

MAX_WAITING = 50
"""Sockets that wait for `start` and bear no signature of the master account's (Twilio reference, section 3)."""

MAX_MESSAGE_BYTES = 65_536
"""Source: Twilio reference, section 1.1."""

RELEASE_S = 3.0
"""Longest wait for a hang-up by REST before the stream is closed all the same; an update takes 0.1 to 0.5 s."""

LAST_RESORT_S = 30.0
"""How much longer than a call's limit its conversation may live: the bridge ends calls itself, with a sentence."""

APOLOGY = (Path(__file__).parent / "clips" / "apology.ulaw").read_bytes()
"""Raw mu-law, 8 kHz: spoken when a call ends by an error and nobody else can speak."""


class PhoneDoor(Door):
    """One call's stream."""

    channel = "phone"
    _waiting = 0

    def initialize(self, context: Context) -> None:
        super().initialize(context)
        self._start: asyncio.Future[twilio.Start] = asyncio.get_running_loop().create_future()
        self._stream_sid: str | None = None
        self._call_sid: str | None = None
        self._leg: TwilioLeg | None = None
        self._refused: str | None = None
        self._release: asyncio.Task[None] | None = None

    def check_origin(self, origin: str) -> bool:
        """Refuse browsers: Twilio sends no Origin."""
        return False

    @property
    def max_message_size(self) -> int:
        """Frame limit in bytes."""
        return MAX_MESSAGE_BYTES

    def text_received(self, frame: bytes) -> None:
        """Take one message; the first `start` says who calls, what comes after it is kept for the session."""
        if self.relay is not None or self._start.done():
            super().text_received(frame)
            return
        try:
            message = twilio.read_message(frame)
        except twilio.BadMessage:
            return
        if isinstance(message, twilio.Start):
            self._start.set_result(message)

    # ------------------------------------------------------------------ identify

    async def prepare_relay(self) -> Relay:
        """Wait for `start`, make sure that Twilio sent it for a call of ours, and make the session."""
        is_stranger = not self._is_master_signed()
        if is_stranger and PhoneDoor._waiting >= MAX_WAITING:
            raise AtCapacity("too many streams without start")
        PhoneDoor._waiting += is_stranger
        try:
            start, call = await self._claimed()
        finally:
            PhoneDoor._waiting -= is_stranger
        self._call_sid = call.call_sid
        await self.count_user(call.user_id)
        return await self._configure(start, call)

    def _is_master_signed(self) -> bool:
        """Return whether the handshake bears the master account's signature, so that strangers cannot crowd it out."""
        settings, headers = self.context.settings, self.request.headers
        if settings.public_url is None or settings.twilio_auth_token is None:
            return False
        return twilio.signature_matches(
            stream_url(settings.public_url),
            [],
            settings.twilio_auth_token,
            given=headers.get("X-Twilio-Signature"),
            settings=headers.get("X-Twilio-Webhooks-Signature-Settings"),
        )

    async def _claimed(self) -> tuple[twilio.Start, Call]:
        """Return `start` and the call it belongs to, taken for this stream alone."""
        try:
            async with asyncio.timeout(START_S):
                start = await self._start
        except TimeoutError:
            raise BadRequest("no start in time") from None
        self._stream_sid = start.stream_sid
        try:
            async with asyncio.timeout(CLAIM_S):
                return start, await claimed_call(self.context, start, self.request.headers)
        except TimeoutError:
            raise InternalError("the call was not found in time") from None

    # ------------------------------------------------------------------ configure

    async def _configure(self, start: twilio.Start, call: Call) -> Relay:
        context = self.context
        row = await context.store.agent(call.agent_id, call.user_id)
        if row is None:
            raise AgentNotFound("the call's agent is gone")
        agent = configured_agent(row, call.config)
        if agent.repaired:
            context.logger.warning("agent repaired", agent_id=agent.id, fields=",".join(agent.repaired))
        longest_s = agent.call_settings.max_duration_s or context.settings.connection_timeout_ms / 1000
        plan = self._plan(agent, longest_s, await context.spent_today(call.user_id))
        bridge = PhoneBridge(
            Conversation(plan),
            stream_sid=start.stream_sid,
            longest_s=longest_s,
            apology=APOLOGY,
            piece_ms=context.settings.phone_append_ms,
        )
        identity = Identity(
            connection_id=self.connection_id,
            channel="phone",
            user_id=call.user_id,
            agent_id=agent.id,
            conversation_id=plan.conversation_id,
            call_sid=call.call_sid,
        )
        context.save(
            ConversationRow(plan.conversation_id, call.user_id, agent.id, "phone", wall_clock(), call_sid=call.call_sid)
        )
        context.logger.info(
            "conversation opened",
            channel="phone",
            conn=identity.connection_id,
            conversation_id=identity.conversation_id,
            agent_id=agent.id,
            user_id=call.user_id,
            call_sid=call.call_sid,
        )
        self._leg = TwilioLeg(context, call, start.account_sid)
        return Relay(bridge, self.make_outbox(), identity, context, self.shut, leg=self._leg)

    def _plan(self, agent: Agent, longest_s: float, spent_usd: float) -> Plan:
        settings = self.context.settings
        return Plan(
            conversation_id=str(uuid.uuid4()),
            agent=agent,
            voice=agent.style.voice,
            model=agent.model or settings.openai_model,
            transcription_model=settings.openai_transcription_model,
            channel="phone",
            audio_format="audio/pcmu",
            max_session_s=longest_s + LAST_RESORT_S,
            idle_s=settings.idle_timeout_ms / 1000,
            budget_usd=settings.daily_budget_usd,
            spent_usd=spent_usd,
            greets=True,
            interruptible=agent.call_settings.allow_interruptions,
            wall_offset_s=time.time() - time.monotonic(),
        )

    # ------------------------------------------------------------------ the end

    def _refuse(self, error: GatewayError) -> None:
        """Let the caller hear an apology before the line is released; who is not Twilio hears nothing."""
        self._refused = error.ending.end_reason
        if self._stream_sid is None or isinstance(error, Unauthorized | BadRequest) or self._protocol is None:
            super()._refuse(error)
            return
        self.make_outbox().send(twilio.media_message(self._stream_sid, base64.b64encode(APOLOGY)))
        seconds = len(APOLOGY) / twilio.BYTES_PER_MS / 1000 + 0.5  # the network's way to the caller's ear
        asyncio.get_running_loop().call_later(seconds, super()._refuse, error)

    def shut(self, ending: Ending, message: str) -> None:
        """Close the socket, but let a hang-up by REST go first.

        When the socket goes first Twilio asks `action` what follows, and a server that stops answers no more: the
        caller would hear Twilio's own apology after ours.
        """
        if self._leg is None or self._leg.released.is_set():
            super().shut(ending, message)
        elif self._release is None:
            self._release = self.context.start(self._shut_when_released(ending, message), f"shut-{self.connection_id}")

    async def _shut_when_released(self, ending: Ending, message: str) -> None:
        leg = self._leg
        try:
            async with asyncio.timeout(RELEASE_S):
                if leg is not None:
                    await leg.released.wait()
        except TimeoutError:
            pass  # closing the stream releases the line too
        super().shut(ending, message)

    def _write(self, event: Event) -> None:
        """Send no event of ours: Twilio knows none."""

    def on_close(self) -> None:
        """Finish; the call's row is ended, and its configuration removed with it."""
        super().on_close()
        self._start.cancel()
        if self._call_sid is not None:
            self.context.start(self._end_call(self._call_sid, self._end_reason()), f"end-call-{self.connection_id}")
            self._call_sid = None

    def _end_reason(self) -> str:
        if self._leg is not None and self._leg.is_handed_over:
            return TRANSFERRED
        if self.relay is not None and self.relay.ending is not None:
            return self.relay.ending.end_reason
        return self._refused or CLIENT_LEFT.end_reason

    async def _end_call(self, call_sid: str, reason: str) -> None:
        await self.context.store.end_call(call_sid, ended_at=wall_clock(), end_reason=reason)
