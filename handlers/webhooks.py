"""What Twilio asks over HTTP: the TwiML of a call, what follows its stream, and where it is told how a call goes.

A caller hears a sentence whatever fails: an answer other than 200 would be spoken to by Twilio in its own words.
Source: Twilio reference, sections 2.1 and 2.5.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from tornado.web import HTTPError

from core.agent import Agent
from core.calls import (
    TRANSFERRED,
    Call,
    StoredCall,
    configured_agent,
    is_number,
    iso,
    lifetime,
    token_hash,
)
from core.errors import AgentNotFound, GatewayError, InternalError
from core.twiml import connect_stream, hang_up, say_and_hang_up, wait_for_redirect
from handlers.signers import Signer
from handlers.twilio_form import TwilioForm
from services.store import StoreError
from services.vault import SecretUnavailable

ANSWER_S = 10.0
"""Longest time an answer may take; users of Twilio report that it gives up after 15 s."""

SORRY = "I am sorry, something went wrong. Please call again later. Goodbye."
BUSY = "All lines are busy at the moment. Please call again in a few minutes. Goodbye."
NOT_IN_SERVICE = "This number is not in service at the moment. Goodbye."

SENTENCES: Mapping[str, str] = {
    "not_found": NOT_IN_SERVICE,
    "budget": NOT_IN_SERVICE,
    **dict.fromkeys(("capacity", "too_many", "drain"), BUSY),
}
"""What a caller hears who cannot be connected, by end reason (contract, section 4); for any other it is `SORRY`."""

OVER: Mapping[str, str] = {
    **dict.fromkeys(("completed", "busy", "no-answer", "canceled"), "client_left"),
    "failed": "internal",
}
"""End reason by the `CallStatus` values that say a call is over. Source: Twilio reference, section 2.6."""

MACHINES = ("machine", "fax")
"""Beginnings of `AnsweredBy` when no person answered an outbound call. Source: Twilio reference, section 2.8."""

LEAVE = "hang_up"
"""Value of the call setting `voicemail` for an agent that leaves no message."""

_ERROR_CODE = re.compile(r"\b[1-9][0-9]{4}\b")


class TwimlDoor(TwilioForm):
    """A door that answers TwiML, a spoken apology if nothing else."""

    def answer(self, document: str) -> None:
        """Answer with TwiML."""
        self.set_header("Content-Type", "text/xml; charset=utf-8")
        self.finish(document)

    def failed(self, event: str, error: Exception) -> None:
        """Tell the caller that something went wrong; the text is the same for everybody, so it needs no signature."""
        self.context.logger.error(event, cause=type(error).__name__)
        if not self._finished:
            self.answer(say_and_hang_up(SORRY))


class VoiceWebhook(TwimlDoor):
    """`POST /api/twilio/voice`: announces the call and connects it to the stream."""

    def prepare(self) -> None:
        """Answer 503 to a call that came too late here while another instance takes it; nginx asks that one."""
        if self.context.connections.is_handed_over:
            raise HTTPError(503)

    async def post(self) -> None:
        """Answer with TwiML; the call's row is committed before, as Twilio opens the stream at once."""
        try:
            async with asyncio.timeout(ANSWER_S):
                signed = await self.signed_form()
                if signed is not None:
                    self.answer(await self._connected(*signed))
        except GatewayError as error:
            self.context.metrics.refused(error.ending.code)
            self.context.logger.info("call refused", end_reason=error.ending.end_reason, cause=error.detail)
            self.answer(say_and_hang_up(error.public or SENTENCES.get(error.ending.end_reason, SORRY)))
        except (StoreError, SecretUnavailable, TimeoutError) as error:
            self.failed("call not announced", error)

    async def _connected(self, form: Mapping[str, str], signer: Signer) -> str:
        """Return the document that connects the call.

        Raises:
            GatewayError: If it cannot be connected.
        """
        connections = self.context.connections
        await connections.check_room()  # the stream itself takes the place it keeps
        call = await self._call(form, signer)
        agent = await self.context.store.agent(call.agent_id, call.user_id)
        if agent is None:
            raise AgentNotFound("no agent")
        voicemail = configured_agent(agent, call.config).call_settings.voicemail.strip()
        if voicemail and form.get("AnsweredBy", "").startswith(MACHINES):
            return hang_up() if voicemail == LEAVE else say_and_hang_up(voicemail)
        await connections.check_room(call.user_id)
        await self.context.spent_today(call.user_id)
        token = secrets.token_urlsafe(32)
        created_at, expires_at = lifetime(datetime.now(UTC))
        stored = await self.context.store.put_call(
            call, token_hash=token_hash(token), created_at=created_at, expires_at=expires_at
        )
        if not stored:
            raise InternalError("already live", public=_apology(agent, call))
        return connect_stream(self.context.settings.public_url or "", token)

    async def _call(self, form: Mapping[str, str], signer: Signer) -> Call:
        """Return the call: as the main app announced it, else as its number has it."""
        announced = await self.context.store.call(form["CallSid"])
        if announced is not None and announced.status(iso(datetime.now(UTC))) == "waiting":
            if announced.call.account_sid not in {None, signer.account_sid}:
                raise AgentNotFound("announced for another account")
            secret_id = announced.call.auth_token_secret_id or signer.secret_id
            return replace(announced.call, account_sid=signer.account_sid, auth_token_secret_id=secret_id)
        ours = form.get("From" if form.get("Direction", "").startswith("outbound") else "To", "")
        number = await self.context.store.number(ours) if is_number(ours) else None
        if number is None:
            raise AgentNotFound("unknown number")
        if number.account_sid not in {None, signer.account_sid}:
            raise AgentNotFound("number of another account")
        return Call(
            call_sid=form["CallSid"],
            agent_id=number.agent_id,
            user_id=number.user_id,
            account_sid=signer.account_sid,
            from_number=form.get("From"),
            to_number=form.get("To"),
            auth_token_secret_id=signer.secret_id,
        )


class AfterWebhook(TwimlDoor):
    """`POST /api/twilio/after`: what follows the stream, whether it ended or never began."""

    async def post(self) -> None:
        """Answer with TwiML: an end after a stream, an apology instead of one, patience during a transfer."""
        try:
            async with asyncio.timeout(ANSWER_S):
                signed = await self.signed_form()
                if signed is not None:
                    self.answer(await self._following(signed[0]))
        except (StoreError, SecretUnavailable, TimeoutError) as error:
            self.failed("end of a stream not looked up", error)

    async def _following(self, form: Mapping[str, str]) -> str:
        call_sid, ended_at = form["CallSid"], iso(datetime.now(UTC))
        stored = await self.context.store.call(call_sid)
        if stored is None:  # removed by the main app while the call was held
            return hang_up()
        if stored.end_reason == TRANSFERRED:
            return wait_for_redirect()
        if stored.claimed_at is not None:
            return hang_up()
        left = OVER.get(form.get("CallStatus", ""))
        if left is not None:  # the caller was quicker than the stream
            await self.context.store.end_call(call_sid, ended_at=ended_at, end_reason=left)
            return hang_up()
        self.context.logger.error("stream never began", call_sid=call_sid, cause="not claimed")
        sentence = await self._apology(stored)
        await self.context.store.end_call(call_sid, ended_at=ended_at, end_reason="internal")
        return say_and_hang_up(sentence)

    async def _apology(self, stored: StoredCall) -> str:
        agent = await self.context.store.agent(stored.call.agent_id, stored.call.user_id)
        return SORRY if agent is None else _apology(agent, stored.call)


class StatusWebhook(TwilioForm):
    """`POST /api/twilio/status`: status callbacks of calls and of streams."""

    async def post(self) -> None:
        """Take note: log a stream that failed, write down the end of a call."""
        try:
            async with asyncio.timeout(ANSWER_S):
                signed = await self.signed_form()
                if signed is None:
                    return
                await self._note(signed[0])
        except (StoreError, SecretUnavailable, TimeoutError) as error:
            self.context.logger.error("status callback lost", cause=type(error).__name__)
            self.set_status(503)
        else:
            self.set_status(204)
            self.clear_header("Content-Type")
        if not self._finished:
            self.finish()

    async def _note(self, form: Mapping[str, str]) -> None:
        call_sid = form["CallSid"]
        if form.get("StreamEvent") == "stream-error":
            code = _ERROR_CODE.search(form.get("StreamError", ""))
            self.context.logger.error("stream failed", call_sid=call_sid, code=code.group() if code else "unknown")
            return
        if "StreamEvent" in form:
            self.context.logger.debug("stream event", call_sid=call_sid, kind=form["StreamEvent"][:40])
            return
        end_reason = OVER.get(form.get("CallStatus", ""))
        if end_reason is not None:
            await self.context.store.end_call(call_sid, ended_at=iso(datetime.now(UTC)), end_reason=end_reason)


def _apology(agent: Agent, call: Call) -> str:
    """Return the sentence that the agent's owner wrote for when something went wrong."""
    return configured_agent(agent, call.config).call_settings.error_message
