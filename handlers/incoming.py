"""Is this stream a call of ours? The signature of its handshake, the row of its call, the one-time token.

The row is in the database before Twilio dials, or the main app is asked for it. Both proofs that can be had are
demanded: a signature when a token of the account is known, the one-time token when the row has one.
Source: Twilio reference, sections 2 and 3.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from tornado.httputil import HTTPHeaders

from core import twilio
from core.calls import BadCall, Call, call_from_config, lifetime, token_hash
from core.errors import AgentNotFound, BadRequest, InternalError, Unauthorized
from core.twiml import TOKEN_PARAMETER, stream_url
from handlers.context import Context
from handlers.ledger import wall_clock
from handlers.signers import signer_of
from services.main_app import MainAppUnavailable
from services.vault import SecretUnavailable

ROW_TRIES = 3
ROW_PAUSE_S = 0.15
"""Twilio dials the socket while the row may still be on its way (Twilio reference, section 2.1)."""


async def claimed_call(context: Context, start: twilio.Start, headers: HTTPHeaders) -> Call:
    """Return the call a stream belongs to, taken for this stream alone.

    Raises:
        BadRequest: If the stream carries no mu-law.
        Unauthorized: If it is no call of ours, or one of another stream, or not Twilio's.
        AgentNotFound: If it is Twilio, but nobody announced the call in time: a caller waits to be told.
        InternalError: If the Vault or the main app failed.
        StoreError: If the database failed.
    """
    if not start.media_format.is_mulaw:
        raise BadRequest("unsupported media format")
    token = start.parameters.get(TOKEN_PARAMETER, "")
    signed = await _is_signed(context, start, headers)
    if signed is False:
        raise Unauthorized("the handshake's signature does not fit")
    if signed is None and not token:
        raise Unauthorized("neither signature nor one-time token: set PUBLIC_URL and TWILIO_AUTH_TOKEN")
    hashed = token_hash(token) if token else None
    await _expect_row(context, start, hashed, is_proven=signed is True)
    call = await context.store.claim_call(start.call_sid, token_hash=hashed, now=wall_clock())
    if call is None and signed and await _is_unannounced(context, start.call_sid):
        raise AgentNotFound("the call was not announced, or its announcement has expired")
    if call is None:
        raise Unauthorized("no such call, or it is claimed, expired or of another token")
    if call.account_sid not in {None, start.account_sid}:
        raise Unauthorized("the call belongs to another account")
    return call


async def _is_signed(context: Context, start: twilio.Start, headers: HTTPHeaders) -> bool | None:
    """Return whether Twilio signed the handshake; None when there is no token to check it with."""
    public_url = context.settings.public_url
    if public_url is None:
        return None
    try:
        signer = await signer_of(context.store, context.accounts, start.account_sid, call_sid=start.call_sid)
    except SecretUnavailable as error:
        raise InternalError(f"subaccount token: {error}") from None
    if signer is None:
        return None
    return twilio.signature_matches(
        stream_url(public_url),
        [],
        signer.token,
        given=headers.get("X-Twilio-Signature"),
        settings=headers.get("X-Twilio-Webhooks-Signature-Settings"),
    )


async def _expect_row(context: Context, start: twilio.Start, hashed: str | None, *, is_proven: bool) -> None:
    """Return when the call's row is there, or when it will not come; the main app is asked only for proven calls."""
    for attempt in range(ROW_TRIES):
        if attempt:
            await asyncio.sleep(ROW_PAUSE_S)
        stored = await context.store.call(start.call_sid)
        if stored is not None and stored.status(wall_clock()) == "waiting":
            return
    if context.main_app is None or not is_proven:
        return
    try:
        answer = await context.main_app.call_config(start.call_sid)
        if answer is None:
            return
        call = call_from_config(start.call_sid, answer)
    except (MainAppUnavailable, BadCall) as error:
        context.logger.error("call configuration not usable", cause=type(error).__name__, detail=str(error))
        raise InternalError("the main app gave no usable configuration") from None
    created_at, expires_at = lifetime(datetime.now(UTC))
    call = replace(call, account_sid=call.account_sid or start.account_sid)
    await context.store.put_call(call, token_hash=hashed, created_at=created_at, expires_at=expires_at)


async def _is_unannounced(context: Context, call_sid: str) -> bool:
    """Return whether nobody announced this call, or too long ago; a call with another token or stream is announced."""
    stored = await context.store.call(call_sid)
    return stored is None or stored.status(wall_clock()) == "expired"
