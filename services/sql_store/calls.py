"""Phone numbers and calls in the SQL store."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, and_, delete, or_, select, update

from core.calls import (
    Call,
    PhoneNumber,
    StoredCall,
    call_columns,
    call_from_columns,
    moment,
    stored_call_from_columns,
)

from .base import SqlBase
from .tables import calls, deleted_conversation_costs, phone_numbers

KEPT_AFTER_CLAIM = timedelta(hours=24)
"""The longest call Twilio holds."""

KEPT_ROWS = timedelta(days=30)
"""How long a call's row stays, without its configuration: long enough for a monthly bill to be looked at."""

KEPT_COSTS = timedelta(days=2)
"""A deleted conversation's cost counts in the budget of its UTC day."""

LEFT = "client_left"
"""The end reason that a better-informed one replaces."""


class SqlCalls(SqlBase):
    """The part of the store that concerns the phone; `services/store.py` says what each call promises."""

    async def number(self, number: str) -> PhoneNumber | None:
        """Return the number, given in E.164, if an agent answers it."""
        c = phone_numbers.c
        columns = (c.number, c.agent_id, c.user_id, c.account_sid, c.auth_token_secret_id)
        rows = await self._rows(select(*columns).where(c.number == number))
        return PhoneNumber(**rows[0]) if rows else None

    async def put_number(self, number: PhoneNumber) -> None:
        """Let an agent answer a number, whoever did before.

        For the demo, tests and embedded databases; on Supabase the app writes its numbers itself.

        Raises:
            ParentMissing: If the agent is not the user's.
            StoreRejected: If it is no number in E.164.
        """
        columns = {name: getattr(number, name) for name in PhoneNumber.__dataclass_fields__}
        fresh = self._database.insert(phone_numbers).values(columns)
        await self._rows(fresh.on_conflict_do_update(index_elements=["number"], set_=columns))

    async def put_call(self, call: Call, *, token_hash: str | None, created_at: str, expires_at: str) -> bool:
        """Store a call that waits for its stream; False when the call of this sid is live."""
        columns = call_columns(call) | {"token_hash": token_hash, "created_at": created_at, "expires_at": expires_at}
        fresh = self._database.insert(calls).values(columns)
        unset = {"claimed_at": None, "ended_at": None, "end_reason": None}
        replacing = fresh.on_conflict_do_update(
            index_elements=["call_sid"],
            set_=columns | unset,
            where=or_(calls.c.claimed_at.is_(None), calls.c.ended_at.is_not(None)),
        )
        return bool(await self._rows(replacing.returning(calls.c.call_sid)))

    async def claim_call(self, call_sid: str, *, token_hash: str | None, now: str) -> Call | None:
        """Return a waiting call to the first who asks with its token, and to nobody after."""
        c = calls.c
        waiting = and_(c.claimed_at.is_(None), c.ended_at.is_(None), c.expires_at > now)
        fits = c.token_hash.is_(None) if token_hash is None else c.token_hash == token_hash
        claim = update(calls).where(c.call_sid == call_sid, waiting, fits).values(claimed_at=now)
        rows = await self._rows(claim.returning(*c))
        return call_from_columns(rows[0]) if rows else None

    async def call(self, call_sid: str) -> StoredCall | None:
        """Return a call's row, whoever's it is."""
        rows = await self._rows(select(calls).where(calls.c.call_sid == call_sid))
        return stored_call_from_columns(rows[0]) if rows else None

    async def end_call(self, call_sid: str, *, ended_at: str, end_reason: str) -> None:
        """Write down a call's end and remove its configuration and token; see `Store.end_call`."""
        c = calls.c
        open_end = or_(c.ended_at.is_(None), c.end_reason == LEFT)
        end = update(calls).where(c.call_sid == call_sid, open_end)
        await self._rows(end.values(ended_at=ended_at, end_reason=end_reason, config={}, token_hash=None))

    async def delete_call(self, call_sid: str) -> bool:
        """Delete a call's row; return whether there was one."""
        gone = delete(calls).where(calls.c.call_sid == call_sid)
        return bool(await self._rows(gone.returning(calls.c.call_sid)))

    async def remove_expired(self, now: str) -> int:
        """Remove what calls no longer need; return how many rows of calls are gone."""
        at = moment(now)
        c, costs = calls.c, deleted_conversation_costs
        unclaimed = and_(c.claimed_at.is_(None), c.expires_at <= at)
        over = or_(c.ended_at.is_not(None), c.claimed_at < at - KEPT_AFTER_CLAIM)
        full = or_(c.config != {}, c.token_hash.is_not(None))

        def removed(connection: Connection) -> int:
            gone = connection.execute(delete(calls).where(or_(unclaimed, c.created_at < at - KEPT_ROWS)))
            connection.execute(update(calls).where(over, full).values(config={}, token_hash=None))
            connection.execute(delete(costs).where(costs.c.last_active_at < at - KEPT_COSTS))
            return int(gone.rowcount)

        return await self._database.run(removed)
