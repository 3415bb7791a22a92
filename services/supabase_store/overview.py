"""What an operator asks of the data API, past all ownership: which conversations there were and what they cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from core.records import MAX_LISTED, OPEN, ConversationSearch, DayCost, ListedConversation

from .requests import SupabaseBase, iso_time, rows_of

LISTED = (
    "id,user_id,agent_id,channel,call_sid,started_at,last_active_at,ended_at,end_reason,turn_count,usage,cost_usd"
)

PAGE_ROWS = 1000
"""Rows of one answer; hosted projects cut off at 1000 (setting "Max rows")."""

MAX_PAGES = 20
"""Where the function cost_by_day is missing, 20,000 conversations are added up; what is older is left out."""


class SupabaseOverview(SupabaseBase):
    """The part of the store that serves the operator; `services/store.py` says what each call promises."""

    async def conversations(self, search: ConversationSearch) -> list[ListedConversation]:
        """Return the conversations that fit, those active last first."""
        if any(text is not None and not _is_id(text) for text in (search.agent_id, search.user_id)):
            return []
        query = self._client.from_("conversations").select(LISTED)
        if search.id is not None:
            query = query.eq("id" if _is_id(search.id) else "call_sid", search.id)
        if search.agent_id is not None:
            query = query.eq("agent_id", search.agent_id)
        if search.user_id is not None:
            query = query.eq("user_id", search.user_id)
        if search.status is not None:
            query = query.is_("end_reason", "null") if search.status == OPEN else query.eq("end_reason", search.status)
        if search.before is not None:
            query = query.lt("last_active_at", iso_time(search.before))
        newest = query.order("last_active_at", desc=True).order("id").limit(max(1, min(search.limit, MAX_LISTED)))
        rows = await self._rows(newest)
        names = await self._agent_names({row["agent_id"] for row in rows})
        return [_listed(row, names.get(row["agent_id"], "")) for row in rows]

    async def cost_by_day(self, since: str) -> list[DayCost]:
        """Return the cost of each day from the ISO 8601 time on, oldest first; days without a conversation are left
        out."""
        async with self._call():
            answer = await self._call_function("cost_by_day", {"since": iso_time(since)})
            rows = await self._added_up_days(since) if answer is None else rows_of(answer)
        return [DayCost(str(row["day"]), int(row["conversations"]), float(row["cost_usd"] or 0)) for row in rows]

    async def _agent_names(self, agent_ids: set[str]) -> dict[str, str]:
        """Return the names of agents by id: asked by itself, as views over another schema have no relations."""
        if not agent_ids:
            return {}
        rows = await self._rows(self._client.from_("agents").select("id,name").in_("id", sorted(agent_ids)))
        return {row["id"]: str(row["name"] or "") for row in rows}

    async def _added_up_days(self, since: str) -> list[dict[str, Any]]:
        """Add up the newest conversations one by one."""
        count: dict[str, int] = defaultdict(int)
        cost: dict[str, float] = defaultdict(float)
        for page in range(MAX_PAGES):
            query = self._client.from_("conversations").select("last_active_at,cost_usd").gte("last_active_at", since)
            ordered = query.order("last_active_at", desc=True).order("id")
            rows = rows_of(await self._send(ordered.limit(PAGE_ROWS).offset(page * PAGE_ROWS)))
            for row in rows:
                day = datetime.fromisoformat(row["last_active_at"]).astimezone(UTC).date().isoformat()
                count[day] += 1
                cost[day] += float(row["cost_usd"] or 0)
            if len(rows) < PAGE_ROWS:
                break
        return [{"day": day, "conversations": count[day], "cost_usd": cost[day]} for day in sorted(count)]


def _listed(row: Mapping[str, Any], agent_name: str) -> ListedConversation:
    times = {name: _iso(row[name]) for name in ("started_at", "last_active_at", "ended_at")}
    changed = {**times, "usage": row["usage"] or {}, "cost_usd": float(row["cost_usd"]), "agent_name": agent_name}
    return ListedConversation(**{**row, **changed})


def _iso(text: str | None) -> str | None:
    """Return a time of PostgREST's in UTC with microseconds, as the SQL store has it."""
    if text is None:
        return None
    return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="microseconds")


def _is_id(text: str) -> bool:
    """Return whether it is a UUID."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True
