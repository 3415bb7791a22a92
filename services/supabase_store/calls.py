"""Phone numbers and calls over the data API.

Each decision is one statement of the database's: a claim is one UPDATE with all its conditions in the address.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from postgrest.types import CountMethod, ReturnMethod

from core.calls import (
    Call,
    PhoneNumber,
    StoredCall,
    call_columns,
    call_from_columns,
    is_number,
    iso,
    moment,
    stored_call_from_columns,
)

from .requests import SupabaseBase, expect_nothing, iso_time, rows_of

NUMBER_COLUMNS = "number,agent_id,user_id,account_sid,auth_token_secret_id"

KEPT_AFTER_CLAIM = timedelta(hours=24)
"""The longest call Twilio holds."""

KEPT_ROWS = timedelta(days=30)
"""How long a call's row stays, without its configuration: long enough for a monthly bill to be looked at."""

KEPT_COSTS = timedelta(days=2)
"""A deleted conversation's cost counts in the budget of its UTC day."""

UNSET = {"claimed_at": None, "ended_at": None, "end_reason": None}
NOTHING = ReturnMethod.minimal
EMPTIED: dict[str, Any] = {"config": {}, "token_hash": None}


class SupabaseCalls(SupabaseBase):
    """The part of the store that concerns the phone; `services/store.py` says what each call promises."""

    async def number(self, number: str) -> PhoneNumber | None:
        """Return the number, given in E.164, if an agent answers it."""
        if not is_number(number):
            return None
        # In quotes, which a list may have, because Supabase Lite would read +1415… as a number without its plus.
        query = self._client.from_("phone_numbers").select(NUMBER_COLUMNS).filter("number", "in", f'("{number}")')
        rows = await self._rows(query.limit(1))
        return PhoneNumber(**rows[0]) if rows else None

    async def put_call(self, call: Call, *, token_hash: str | None, created_at: str, expires_at: str) -> bool:
        """Store a call that waits for its stream; False when the call of this sid is live.

        The data API has no conditional upsert. So: replace, else insert, else replace what somebody else has just
        inserted.
        """
        times = {"created_at": iso_time(created_at), "expires_at": iso_time(expires_at)}
        columns = call_columns(call) | times | {"token_hash": token_hash}
        table = self._client.from_("calls")
        async with self._call():
            for attempt in (True, False):
                change = self._client.from_("calls").update(columns | UNSET)
                mine = change.eq("call_sid", call.call_sid).or_("claimed_at.is.null,ended_at.not.is.null")
                if rows_of(await self._send(mine.select("call_sid"))):
                    return True
                if attempt:
                    fresh = table.upsert(columns, on_conflict="call_sid", ignore_duplicates=True)
                    if rows_of(await self._send(fresh.select("call_sid"))):
                        return True
        return False

    async def claim_call(self, call_sid: str, *, token_hash: str | None, now: str) -> Call | None:
        """Return a waiting call to the first who asks with its token, and to nobody after."""
        claim = self._client.from_("calls").update({"claimed_at": iso_time(now)}).eq("call_sid", call_sid)
        waiting = claim.is_("claimed_at", "null").is_("ended_at", "null").gt("expires_at", now)
        fits = waiting.is_("token_hash", "null") if token_hash is None else waiting.eq("token_hash", token_hash)
        rows = await self._rows(fits)
        return call_from_columns(rows[0]) if rows else None

    async def call(self, call_sid: str) -> StoredCall | None:
        """Return a call's row, whoever's it is."""
        rows = await self._rows(self._client.from_("calls").select("*").eq("call_sid", call_sid).limit(1))
        return stored_call_from_columns(rows[0]) if rows else None

    async def end_call(self, call_sid: str, *, ended_at: str, end_reason: str) -> None:
        """Write down a call's end and remove its configuration and token; see `Store.end_call`."""
        end = {"ended_at": iso_time(ended_at), "end_reason": end_reason, **EMPTIED}
        change = self._client.from_("calls").update(end, returning=NOTHING).eq("call_sid", call_sid)
        async with self._call():
            expect_nothing(await self._send(change.or_("ended_at.is.null,end_reason.eq.client_left")))

    async def delete_call(self, call_sid: str) -> bool:
        """Delete a call's row; return whether there was one."""
        return bool(await self._rows(self._client.from_("calls").delete().eq("call_sid", call_sid)))

    async def remove_expired(self, now: str) -> int:
        """Remove what calls no longer need; return how many rows of calls are gone."""
        at = moment(now)
        unclaimed = self._removal("calls").is_("claimed_at", "null").lte("expires_at", iso(at))
        old = self._removal("calls").lt("created_at", iso(at - KEPT_ROWS))
        # One `or` a request: Supabase Lite heeds only the last of several.
        ended = self._emptying().not_.is_("ended_at", "null")
        endless = self._emptying().lt("claimed_at", iso(at - KEPT_AFTER_CLAIM))
        costs = self._removal("deleted_conversation_costs").lt("last_active_at", iso(at - KEPT_COSTS))
        async with self._call():
            answers = [await self._send(query) for query in (unclaimed, old, ended, endless, costs)]
            for answer in answers:
                expect_nothing(answer)
        return sum(answer.count or 0 for answer in answers[:2])

    def _emptying(self) -> Any:
        """Return the update that empties rows which are not empty yet."""
        change = self._client.from_("calls").update(EMPTIED, returning=NOTHING)
        return change.or_("config.neq.{},token_hash.not.is.null")

    def _removal(self, table: str) -> Any:
        return self._client.from_(table).delete(count=CountMethod.exact, returning=NOTHING)
