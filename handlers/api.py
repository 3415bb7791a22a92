"""The JSON doors for apps: tickets, and the agents a signed-in user may talk with."""

from __future__ import annotations

import json
from typing import Any

from tornado.web import RequestHandler

from core.agent import VOICES
from handlers import origins
from handlers.context import Context
from services.auth import TokenRejected, User
from services.store import StoreError


class JsonDoor(RequestHandler):
    """A JSON door with a bearer token, usable from pages of allowed origins."""

    def initialize(self, context: Context) -> None:
        self.context = context

    def set_default_headers(self) -> None:
        """Keep answers out of caches; let pages of allowed origins read them."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Type", "application/json; charset=utf-8")

    def prepare(self) -> None:
        """Say which page may read the answer."""
        origin = self.request.headers.get("Origin")
        self.set_header("Vary", "Origin")
        if origin and origins.is_allowed(origin, self.request.host, self.context.settings):
            self.set_header("Access-Control-Allow-Origin", origin)

    def options(self, *args: str) -> None:
        """Answer a page's preflight request (Fetch standard, section 3.3)."""
        self.set_header("Access-Control-Allow-Methods", "GET, POST")
        self.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type")
        self.set_header("Access-Control-Max-Age", "600")
        self.set_status(204)

    async def user(self) -> User | None:
        """Return who sent the request; None after the refusal has been written."""
        header = self.request.headers.get("Authorization", "")
        if header[:7].lower() != "bearer ":
            self.refuse(401, "unauthorized", "Send Authorization: Bearer and the token of the signed-in user.")
            return None
        try:
            return await self.context.verifier.verify(header[7:].strip())
        except TokenRejected:
            self.refuse(401, "unauthorized", "The token was not accepted. Sign in again.")
            return None

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error."""
        self.set_status(status)
        self.finish(json.dumps({"error": {"code": code, "message": message}}))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an error of the framework's in the same shape; Tornado has logged it."""
        code = {404: "not_found", 405: "method_not_allowed"}.get(status_code, "internal")
        self.refuse(status_code, code, self._reason)


class TicketsDoor(JsonDoor):
    """`POST /api/tickets`."""

    async def post(self) -> None:
        """Answer a one-time ticket for the signed-in user."""
        user = await self.user()
        if user is not None:
            self.finish(json.dumps({"ticket": await self.context.tickets.issue(user), "expires_in": 60}))


class AgentsDoor(JsonDoor):
    """`GET /api/agents`: what the talk page's pickers show."""

    async def get(self) -> None:
        """Answer the user's agents and the voices."""
        user = await self.user()
        if user is None:
            return
        try:
            agents = await self.context.store.agents(user.id)
        except StoreError:
            self.refuse(503, "unavailable", "The database cannot be reached. Try again in a moment.")
            return
        shown = [{"id": agent.id, "name": agent.name, "voice": agent.style.voice} for agent in agents]
        self.finish(json.dumps({"agents": shown, "voices": list(VOICES), "simulated": self.context.simulated}))


class NotFound(JsonDoor):
    """Every address that is no door."""

    def initialize(self, context: Context | None = None) -> None:
        """Take no context: there is nothing to look up."""

    def prepare(self) -> None:
        """Refuse, whatever the method."""
        self.refuse(404, "not_found", "There is nothing here.")
