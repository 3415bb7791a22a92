"""What an operator asks of the SQL store, past all ownership: which conversations there were and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, String, func, select, type_coerce

from core.records import MAX_LISTED, OPEN, ConversationSearch, DayCost, ListedConversation

from .base import SqlBase
from .tables import agents, conversations

LISTED = (
    "id", "user_id", "agent_id", "channel", "call_sid", "started_at", "last_active_at", "ended_at", "end_reason",
    "turn_count", "usage", "cost_usd",
)  # fmt: skip


class SqlOverview(SqlBase):
    """The part of the store that serves the operator; `services/store.py` says what each call promises."""

    async def conversations(self, search: ConversationSearch) -> list[ListedConversation]:
        """Return the conversations that fit, those active last first."""
        if any(text is not None and not _is_id(text) for text in (search.agent_id, search.user_id)):
            return []
        c = conversations.c
        columns = [c[name] for name in LISTED]
        query = select(*columns, agents.c.name.label("agent_name")).where(*_conditions(search))
        query = query.outerjoin(agents, agents.c.id == c.agent_id).order_by(c.last_active_at.desc(), c.id)
        return [_listed(row) for row in await self._rows(query.limit(max(1, min(search.limit, MAX_LISTED))))]

    async def cost_by_day(self, since: str) -> list[DayCost]:
        """Return the cost of each day from the ISO 8601 time on, oldest first; days without a conversation are left
        out."""
        c = conversations.c
        day: ColumnElement[str] = func.substr(type_coerce(c.last_active_at, String), 1, 10)
        if self._database.name == "postgresql":
            day = func.to_char(func.timezone("UTC", c.last_active_at), "YYYY-MM-DD")
        sums = (func.count().label("conversations"), func.sum(c.cost_usd).label("cost_usd"))
        query = select(day.label("day"), *sums).where(c.last_active_at >= since).group_by(day).order_by(day)
        rows = await self._rows(query)
        return [DayCost(str(row["day"]), int(row["conversations"]), float(row["cost_usd"] or 0)) for row in rows]


def _conditions(search: ConversationSearch) -> list[ColumnElement[bool]]:
    c = conversations.c
    found: list[ColumnElement[bool]] = []
    if search.id is not None:
        found.append(c.id == search.id if _is_id(search.id) else c.call_sid == search.id)
    if search.agent_id is not None:
        found.append(c.agent_id == search.agent_id)
    if search.user_id is not None:
        found.append(c.user_id == search.user_id)
    if search.status is not None:
        found.append(c.end_reason.is_(None) if search.status == OPEN else c.end_reason == search.status)
    if search.before is not None:
        found.append(c.last_active_at < search.before)
    return found


def _listed(row: Mapping[str, Any]) -> ListedConversation:
    times = {name: _iso(row[name]) for name in ("started_at", "last_active_at", "ended_at")}
    return ListedConversation(**{**row, **times, "usage": row["usage"] or {}, "agent_name": row["agent_name"] or ""})


def _iso(moment: Any) -> str | None:
    return None if moment is None else str(moment.isoformat(timespec="microseconds"))


def _is_id(text: str) -> bool:
    """Return whether it is a UUID."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True
