"""A call's leg at Twilio: what is done to a live call from outside its stream."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from core.calls import Call
from handlers.context import Context
from services.vault import SecretUnavailable


class TwilioLeg:
    """The call's leg at Twilio; without credentials the line is released by closing the stream alone.

    Args:
        account_sid: Account that owns the call, as `start` names it.

    Attributes:
        is_handed_over: Whether the call goes on by other instructions, or is about to.
        released: Set but for the time a hang-up is under way.
    """

    def __init__(self, context: Context, call: Call, account_sid: str) -> None:
        self._context = context
        self._call = call
        self._account_sid = account_sid
        self.is_handed_over = False
        self.released = asyncio.Event()
        self.released.set()

    def hang_up(self) -> Coroutine[Any, Any, None]:
        """End the call; one that is over already is fine. It is under way from here on; the result is to be awaited."""
        self.released.clear()
        return self._hang_up()

    async def _hang_up(self) -> None:
        try:
            await self._update(None)
        finally:
            self.released.set()

    async def redirect(self, twiml: str) -> None:
        """Have the call go on by other instructions."""
        self.is_handed_over = True
        self.is_handed_over = await self._update(twiml)

    async def _update(self, twiml: str | None) -> bool:
        """Change the call; False when nothing was changed, as the log then says."""
        try:
            account = await self._context.accounts.account(self._account_sid, self._call.auth_token_secret_id)
        except SecretUnavailable as error:
            self._context.logger.warning("call not changed", cause=str(error))
            return False
        if account is None:
            self._context.logger.warning("call not changed", cause="no credentials: set TWILIO_AUTH_TOKEN")
            return False
        if twiml is None:
            return await self._context.telephony.hang_up(account, self._call.call_sid)
        return await self._context.telephony.redirect(account, self._call.call_sid, twiml)
