"""What the operator's page asks for: the stream of what is live, past conversations, costs, the doctor's findings.

Whoever sees what was said in a conversation leaves an audit line with its id: `transcript viewed`,
`transcript exported`.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from core.export import EXPORTED_TURNS, as_json, as_text
from core.overview import overview
from core.records import ConversationSearch, ListedConversation, Turn
from handlers.admin_access import Access, AdminDoor
from handlers.context import Context
from services.auth import TokenRejected
from services.doctor import Doctor
from services.siblings import Siblings
from services.store import StoreError

BEAT_S = 1.0
"""Between two pictures of the stream; levels and transcripts need no more (issue 6, point 8)."""

FRESH_S = 0.5
"""A picture is shown to everybody who asks within this: any number of pages asks the workers twice a second at most."""

MAX_STREAMS = 16
"""Pages that look at the same time."""

FLUSH_S = 10.0
"""A page that has not taken a picture for this long is gone."""

COST_DAYS = 30


class Watch:
    """Looks at all workers of this machine.

    Args:
        siblings: Of all workers, oneself included.
    """

    def __init__(self, siblings: Siblings) -> None:
        self._siblings = siblings
        self._lock = asyncio.Lock()
        self._at = float("-inf")
        self._seen: dict[str, Any] = {}
        self.streams = 0

    async def overview(self) -> dict[str, Any]:
        """Return all workers as one (`core.overview`), at most half a second old; who does not answer is left out."""
        async with self._lock:
            if time.monotonic() - self._at > FRESH_S:
                answers = await self._siblings.ask("GET", "/sessions")
                parts = {name: part for name, answer in sorted(answers.items()) if (part := answer.json())}
                self._seen, self._at = overview(parts), time.monotonic()
        return self._seen

    async def detail(self, conversation_id: str, *, with_prompt: bool = False) -> dict[str, Any] | None:
        """Return everything about a live session, None when it is not live; it holds what was said."""
        query = "?prompt=1" if with_prompt else ""
        answers = await self._siblings.ask("GET", f"/sessions/{conversation_id}{query}")
        found = ({**part, "worker": name} for name, answer in answers.items() if (part := answer.json()))
        return next(found, None)

    async def end(self, conversation_id: str, who: str) -> bool:
        """End a live session politely; return whether there was one."""
        answers = await self._siblings.ask("POST", f"/sessions/{conversation_id}/end", {"operator": who})
        return any(answer.status == 200 for answer in answers.values())


class SignInDoor(AdminDoor):
    """`/admin/session`: an admin's token becomes a session; `DELETE` ends it."""

    is_open = True

    async def post(self) -> None:
        """Let an admin in whose token is good; only where the page is exposed."""
        token = _body(self).get("token")
        if not self.access.is_exposed or not isinstance(token, str):
            raise HTTPError(403, reason="Open the printed address")
        try:
            user = await self.context.verifier.verify(token.strip())
        except TokenRejected:
            raise HTTPError(401, reason="The token was not accepted") from None
        if not user.is_admin:
            self.context.logger.warning("admin page refused", audit=True, user_id=user.id)
            raise HTTPError(403, reason="This user is no admin")
        self.give_cookie(self.access.let_in(f"user {user.id}", user.expires_at))
        self.context.logger.info("admin signed in", audit=True, operator=f"user {user.id}")
        self.answer({"signed_in": True})

    def delete(self) -> None:
        """End the session; without one nothing changes."""
        self.access.sign_out(self.get_cookie(self.cookie_name))
        self.answer({"signed_in": False})


class MeDoor(AdminDoor):
    """`GET /admin/me`."""

    def get(self) -> None:
        """Answer who looks, and the value that must come with every change."""
        self.answer({"who": self.session.who, "csrf": self.session.csrf, "exposed": self.access.is_exposed})


class _Watching(AdminDoor):
    def initialize(self, context: Context, access: Access, **rest: Any) -> None:
        super().initialize(context, access)
        self.watch: Watch = rest["watch"]


class StreamDoor(_Watching):
    """`GET /admin/stream`: server-sent events, one picture a second; `?open=ID` adds that session with what is said."""

    _gone: asyncio.Event

    async def get(self) -> None:
        """Send pictures until the page goes, the session ends or the server stops."""
        opened = self.get_query_argument("open", "")
        conversation_id = _uuid(opened) if opened else None
        with_prompt = self.get_query_argument("prompt", "") == "1"
        if self.watch.streams >= MAX_STREAMS:
            raise HTTPError(503, reason="Too many pages look at once")
        self._gone = asyncio.Event()
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("X-Accel-Buffering", "no")  # nginx would collect the pictures
        self.watch.streams += 1
        try:
            if conversation_id is not None:
                self.audit("transcript viewed", conversation_id=conversation_id, with_prompt=with_prompt)
            await self._send_pictures(conversation_id, with_prompt=with_prompt)
        except (StreamClosedError, TimeoutError):
            pass  # the page is gone
        finally:
            self.watch.streams -= 1

    async def _send_pictures(self, conversation_id: str | None, *, with_prompt: bool) -> None:
        while not self._gone.is_set() and self.access.session(self.get_cookie(self.cookie_name)) is not None:
            picture = {"overview": await self.watch.overview()}
            if conversation_id is not None:
                picture["open"] = await self.watch.detail(conversation_id, with_prompt=with_prompt) or {}
            self.write(f"data: {json.dumps(picture)}\n\n")
            async with asyncio.timeout(FLUSH_S):
                await self.flush()
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._gone.wait()
            except TimeoutError:
                pass  # time for the next picture

    def on_connection_close(self) -> None:
        """Take note that the page is gone."""
        self._gone.set()


class EndDoor(_Watching):
    """`POST /admin/live/{conversation_id}/end`."""

    async def post(self, conversation_id: str) -> None:
        """End a live session; the worker that holds it writes the audit line."""
        if not await self.watch.end(conversation_id, self.session.who):
            raise HTTPError(404, reason="No such session is live")
        self.answer({"ended": True})


class PastDoor(AdminDoor):
    """`GET /admin/past`: stored conversations, without what was said."""

    async def get(self) -> None:
        """Answer the conversations that fit the query: id, agent_id, user_id, status, before, limit."""
        asked = {name: self.get_query_argument(name, "") or None for name in ("id", "agent_id", "user_id", "status")}
        before = self.get_query_argument("before", "") or None
        try:
            limit = int(self.get_query_argument("limit", "50"))
            if before is not None and datetime.fromisoformat(before).tzinfo is None:
                raise ValueError("no time zone")
        except ValueError:
            raise HTTPError(400, reason="limit must be a number and before a time with its zone") from None
        try:
            found = await self.context.store.conversations(ConversationSearch(**asked, before=before, limit=limit))
        except StoreError:
            raise HTTPError(503, reason="The database cannot be reached") from None
        self.answer({"conversations": [asdict(conversation) for conversation in found]})


class TranscriptDoor(AdminDoor):
    """`GET /admin/past/{conversation_id}`: what was said; with `?format=text` or `json` as a file to keep."""

    async def get(self, conversation_id: str) -> None:
        """Answer a stored conversation whole, and leave an audit line."""
        kind = self.get_query_argument("format", "")
        if kind not in {"", "text", "json"}:
            raise HTTPError(400, reason="format must be text or json")
        of, turns = await self._stored(conversation_id)
        event = "transcript exported" if kind else "transcript viewed"
        self.audit(event, conversation_id=conversation_id, format=kind or None)
        if kind:
            name = f"conversation-{conversation_id}.{'txt' if kind == 'text' else 'json'}"
            self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        if kind == "text":
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(as_text(of, turns))
        else:
            self.answer(as_json(of, turns))

    async def _stored(self, conversation_id: str) -> tuple[ListedConversation, list[Turn]]:
        try:
            found = await self.context.store.conversations(ConversationSearch(id=conversation_id, limit=1))
            if not found:
                raise HTTPError(404, reason="No such conversation is stored")
            return found[0], await self.context.store.history(
                conversation_id, found[0].user_id, limit=EXPORTED_TURNS
            )
        except StoreError:
            raise HTTPError(503, reason="The database cannot be reached") from None


class CostsDoor(AdminDoor):
    """`GET /admin/costs`: cost of the last thirty days, by day."""

    async def get(self) -> None:
        """Answer every day, those without a conversation too."""
        first = (datetime.now(UTC) - timedelta(days=COST_DAYS - 1)).replace(hour=0, minute=0, second=0, microsecond=0)
        try:
            found = {day.day: asdict(day) for day in await self.context.store.cost_by_day(first.isoformat())}
        except StoreError:
            raise HTTPError(503, reason="The database cannot be reached") from None
        days = [(first + timedelta(days=place)).date().isoformat() for place in range(COST_DAYS)]
        self.answer({"days": [found.get(day, {"day": day, "conversations": 0, "cost_usd": 0.0}) for day in days]})


class DoctorDoor(AdminDoor):
    """`GET /admin/doctor`."""

    def initialize(self, context: Context, access: Access, **rest: Any) -> None:
        super().initialize(context, access)
        self.doctor: Doctor = rest["doctor"]

    async def get(self) -> None:
        """Answer what `./voice doctor` finds."""
        self.answer(await self.doctor.findings())


def _body(door: AdminDoor) -> dict[str, Any]:
    try:
        value = json.loads(door.request.body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise HTTPError(400, reason="The body must be a JSON object")
    return value


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise HTTPError(400, reason="The id must be a UUID") from None
