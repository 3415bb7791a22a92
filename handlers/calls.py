"""Calls as the main app announces them: `PUT`, `GET` and `DELETE /api/calls/{CallSid}`; and their removal.

The door is there only when INTERNAL_API_KEY is set. A call put here waits 300 s for its stream, which must bring the
one-time token of the answer as `<Parameter name="token">`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from datetime import UTC, datetime
from typing import Any

from tornado.web import HTTPError

from core.calls import (
    BadCall,
    Call,
    StoredCall,
    call_from_config,
    is_call_sid,
    iso,
    lifetime,
    token_hash,
    unknown_fields,
)
from core.overrides import config_problems
from core.twiml import stream_url
from handlers.api import JsonDoor
from handlers.context import Context
from services.store import StoreError, StoreRejected

CLEANUP_EVERY_S = 60.0
"""An expired configuration is gone at most this much after its 300 s."""


class CallsDoor(JsonDoor):
    """`/api/calls/{CallSid}`, for the main app only."""

    def prepare(self) -> None:
        """Let the main app in; pages have no business here, so no origin may read the answer."""
        key = self.context.settings.internal_api_key
        if not key:
            self.refuse(404, "not_found", "There is nothing here.")
            return
        header = self.request.headers.get("Authorization", "")
        given = header[7:].strip() if header[:7].lower() == "bearer " else ""
        if not hmac.compare_digest(given.encode("utf-8", "replace"), key.encode()):
            self.context.metrics.refused(401)
            self.context.logger.warning("call refused", path="/api/calls", cause="internal key")
            self.refuse(401, "unauthorized", "Send Authorization: Bearer and the INTERNAL_API_KEY of this server.")

    def options(self, *args: str) -> None:
        """Answer no preflight request: pages have no business here."""
        raise HTTPError(405)

    async def put(self, call_sid: str) -> None:
        """Announce a call, or announce a waiting one anew with a new token."""
        call = self._announced(call_sid)
        if call is None:
            return
        token = secrets.token_urlsafe(32)
        created_at, expires_at = lifetime(datetime.now(UTC))
        try:
            if await self.context.store.agent(call.agent_id, call.user_id) is None:
                self.refuse(422, "invalid", "agent_id names no active agent of this user_id")
                return
            stored = await self.context.store.put_call(
                call, token_hash=token_hash(token), created_at=created_at, expires_at=expires_at
            )
        except StoreRejected:
            self.refuse(422, "invalid", "The database does not take this call: a text holds what it cannot store.")
            return
        except StoreError as error:
            self._unavailable(error)
            return
        if not stored:
            self.refuse(409, "live", "This call has its stream already. Announce a call before it is connected.")
            return
        answer = {"call_sid": call_sid, "token": token, "expires_at": expires_at}
        public_url = self.context.settings.public_url
        self.finish(json.dumps(answer | ({"stream_url": stream_url(public_url)} if public_url else {})))

    async def get(self, call_sid: str) -> None:
        """Answer how far a call has come, without its configuration and token."""
        if not self._is_sid(call_sid):
            return
        try:
            stored = await self.context.store.call(call_sid)
        except StoreError as error:
            self._unavailable(error)
            return
        if stored is None:
            self.refuse(404, "not_found", "No call of this sid was announced, or it has been removed.")
            return
        self.finish(json.dumps(_shown(stored)))

    async def delete(self, call_sid: str) -> None:
        """Remove a call's row; a stream that is open stays open."""
        if not self._is_sid(call_sid):
            return
        try:
            was_there = await self.context.store.delete_call(call_sid)
        except StoreError as error:
            self._unavailable(error)
            return
        if not was_there:
            self.refuse(404, "not_found", "No call of this sid was announced, or it has been removed.")
            return
        self.set_status(204)
        self.clear_header("Content-Type")
        self.finish()

    def _announced(self, call_sid: str) -> Call | None:
        """Return the call the body describes; None after the refusal has been written."""
        if not self._is_sid(call_sid):
            return None
        try:
            body: Any = json.loads(self.request.body)
        except (ValueError, RecursionError):
            self.refuse(400, "malformed", "The body must be a JSON object.")
            return None
        problems: list[str] = []
        call = None
        try:
            call = call_from_config(call_sid, body)
        except BadCall as error:
            problems += error.problems
        if isinstance(body, dict):
            problems += unknown_fields(body)
            config = body.get("config")
            problems += config_problems(config) if isinstance(config, dict) else []
        if not problems:
            return call
        self.set_status(422)
        self.finish(json.dumps({"error": {"code": "invalid", "message": "; ".join(problems), "problems": problems}}))
        return None

    def _is_sid(self, call_sid: str) -> bool:
        if is_call_sid(call_sid):
            return True
        self.refuse(400, "malformed", "A call's sid is CA and 32 hexadecimal digits.")
        return False

    def _unavailable(self, error: StoreError) -> None:
        self.context.logger.error("call not stored or read", cause=type(error).__name__)
        self.refuse(503, "unavailable", "The database cannot be reached. Try again in a moment.")


_OF_THE_CALL = ("agent_id", "user_id", "account_sid", "from_number", "to_number")
_OF_THE_ROW = ("created_at", "expires_at", "claimed_at", "ended_at", "end_reason")


def _shown(stored: StoredCall) -> dict[str, Any]:
    call = stored.call
    return {
        "call_sid": call.call_sid,
        "status": stored.status(iso(datetime.now(UTC))),
        **{name: getattr(call, name) for name in _OF_THE_CALL},
        **{name: getattr(stored, name) for name in _OF_THE_ROW},
    }


async def remove_expired_calls(context: Context, *, every_s: float = CLEANUP_EVERY_S) -> None:
    """Remove what calls no longer need, for as long as the server runs; cancel it before the store is closed.

    Several servers on one database may all do so. A database that is away is asked again with the next round.
    """
    while True:
        try:
            removed = await context.store.remove_expired(iso(datetime.now(UTC)))
        except StoreError as error:
            context.logger.warning("expired calls not removed", cause=type(error).__name__)
        else:
            if removed:
                context.logger.debug("expired calls removed", calls=removed)
        await asyncio.sleep(every_s)
