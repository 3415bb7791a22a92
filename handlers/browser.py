"""The browser's door `/` and the OpenAI-compatible door `/v1/realtime`.

Both take a Supabase JWT, or a ticket, and lead to the same session; they differ in the dialect and in where the token
is looked for first.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from typing import Any

from tornado.web import HTTPError

from core.agent import RETIRED_VOICES, VOICES, Agent, valid_voice
from core.conversation import REPLAYED_TURNS, Conversation
from core.dialect import Dialect
from core.errors import AgentNotFound, BadRequest, ConversationNotFound, InternalError, Unauthorized
from core.plan import Plan
from core.pricing import Usage
from core.realtime import Event, error_event
from core.records import ConversationRow, StoredConversation, Turn
from core.session import BrowserSession
from handlers.base import Door
from handlers.context import Identity
from handlers.elsewhere import end_elsewhere
from handlers.ledger import wall_clock
from handlers.pages import render_talk_page
from handlers.relay import Relay
from handlers.tickets import is_ticket
from services.auth import TokenRejected, User

FLUSH_S = 2.0
"""How long a resume waits for turns that are still on their way to the database."""

TOKEN_PROTOCOL = "openai-insecure-api-key."  # noqa: S105 - the name of a subprotocol
"""Prefix of the subprotocol that carries a token. Source: OpenAI Realtime reference, section 2."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class RealtimeDoor(Door):
    """`/v1/realtime`: for any OpenAI Realtime client pointed at this server."""

    dialect: Dialect = "ga"

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Select `realtime` when offered; a token offered as a subprotocol is never echoed."""
        return "realtime" if "realtime" in subprotocols else None

    # ------------------------------------------------------------------ identify

    def _token(self) -> str:
        """Return the token of the handshake.

        Raises:
            BadRequest: If there is none.
            Unauthorized: If it is in the URL where it must not be.
        """
        header = self.request.headers.get("Authorization", "")
        if header[:7].lower() == "bearer ":
            return header[7:].strip()
        for offered in self.request.headers.get("Sec-WebSocket-Protocol", "").split(","):
            if offered.strip().startswith(TOKEN_PROTOCOL):
                return offered.strip()[len(TOKEN_PROTOCOL) :]
        token = self._argument("token")
        if not token:
            raise BadRequest("no token")
        if not self.context.settings.query_tokens and not is_ticket(token):
            message = "This server takes no token in the address. Use a ticket, a header or a subprotocol."
            raise Unauthorized("token in the query", public=message)
        return token

    def _argument(self, name: str) -> str:
        """Return a parameter of the query without blanks around it, empty when it is left out.

        Raises:
            BadRequest: If it is not UTF-8.
        """
        try:
            return self.get_query_argument(name, "")
        except HTTPError:
            raise BadRequest(f"{name} is not UTF-8", public=f"{name} is not valid UTF-8.") from None

    async def _identify(self, token: str) -> User:
        if is_ticket(token):
            user = await self.context.tickets.redeem(token)
            if user is None:
                message = "The ticket was used or is older than a minute. Ask for a new one."
                raise Unauthorized("unknown ticket", public=message)
            return user
        try:
            return await self.context.verifier.verify(token)
        except TokenRejected as error:
            raise Unauthorized(error.reason) from None

    def _id(self, name: str) -> str | None:
        """Return an id from the query, in lower case; None when it is left out.

        Raises:
            BadRequest: If it is no UUID.
        """
        value = self._argument(name).lower()
        if value and not _UUID.fullmatch(value):
            raise BadRequest(f"{name} is no UUID", public=f"{name} must be a UUID.")
        return value or None

    # ------------------------------------------------------------------ configure

    async def prepare_relay(self) -> Relay:
        """Identify the user, find agent and conversation, and make the session."""
        agent_id, conversation_id, token = self._id("agent_id"), self._id("conversation_id"), self._token()
        if agent_id is None:
            raise BadRequest("no agent_id")
        user = await self._identify(token)
        replaces = conversation_id is not None and await self._end_elsewhere(conversation_id, user.id)
        await self.count_user(user.id, replaces=replaces)
        if not self.context.spool.accepting_sessions:
            raise InternalError("the transcript spool is full")
        agent, spent_usd, (stored, history, position) = await asyncio.gather(
            self._agent(agent_id, user), self.context.spent_today(user.id), self._conversation(conversation_id, user)
        )
        return self._relay(agent, user, stored, history, position, spent_usd)

    async def _end_elsewhere(self, conversation_id: str, user_id: str) -> bool:
        """End the user's session of a conversation, in whichever process it is.

        Afterwards the turns other processes had of it are stored, as far as they could be in time, also those of a
        session that has ended by itself just before.

        Returns:
            Whether there was such a session.
        """
        here = self.context.connections.replace(conversation_id, user_id)
        asked = {"conversation_id": conversation_id, "user_id": user_id}
        return await end_elsewhere(self.context, asked) or here

    async def _agent(self, agent_id: str, user: User) -> Agent:
        agent = await self.context.store.agent(agent_id, user.id)
        if agent is None:
            raise AgentNotFound("no such agent of this user")
        if agent.repaired:
            self.context.logger.warning("agent repaired", agent_id=agent.id, fields=",".join(agent.repaired))
        return agent

    async def _conversation(
        self, conversation_id: str | None, user: User
    ) -> tuple[StoredConversation | None, list[Turn], int]:
        """Return the conversation to go on with, its last turns and the next position; asked for all at once.

        What is still in the spool is waited for first.
        """
        if conversation_id is None:
            return None, [], 0
        await self.context.spool.flushed(FLUSH_S)
        store = self.context.store
        stored, history, position = await asyncio.gather(
            store.conversation(conversation_id, user.id),
            store.history(conversation_id, user.id, limit=REPLAYED_TURNS),
            store.next_position(conversation_id, user.id),
        )
        if stored is None:
            raise ConversationNotFound("no such conversation of this user")
        return stored, history, position

    # ------------------------------------------------------------------ connect

    def _relay(
        self,
        agent: Agent,
        user: User,
        stored: StoredConversation | None,
        history: list[Turn],
        position: int,
        spent_usd: float,
    ) -> Relay:
        voice, first_events = self._voice(agent)
        settings = self.context.settings
        conversation_id = stored.id if stored else str(uuid.uuid4())
        longest_s = settings.connection_timeout_ms / 1000
        plan = Plan(
            conversation_id=conversation_id,
            agent=agent,
            voice=voice,
            model=agent.model or settings.openai_model,
            transcription_model=settings.openai_transcription_model,
            max_session_s=longest_s,
            idle_s=settings.idle_timeout_ms / 1000,
            budget_usd=settings.daily_budget_usd,
            spent_usd=spent_usd,
            greets=stored is None,
            wall_offset_s=time.time() - time.monotonic(),
        )
        usage = Usage.from_json(stored.usage, stored.cost_usd) if stored else None
        session = BrowserSession(
            Conversation(plan, history=history, next_position=position, usage=usage),
            dialect=self.dialect,
            resumed=stored is not None,
            token_expires_at=time.monotonic() + user.expires_at - time.time(),
            first_events=first_events,
        )
        identity = Identity(
            connection_id=self.connection_id,
            channel="browser",
            user_id=user.id,
            agent_id=agent.id,
            conversation_id=conversation_id,
            turns_before=stored.turn_count if stored else 0,
            cost_before_usd=stored.cost_usd if stored else 0.0,
        )
        if stored is None:
            self.context.save(ConversationRow(conversation_id, user.id, agent.id, "browser", wall_clock()))
        self._log_opening(identity, resumed=stored is not None)
        return Relay(session, self.make_outbox(), identity, self.context, self.shut)

    def _log_opening(self, identity: Identity, **fields: Any) -> None:
        self.context.logger.info(
            "conversation opened",
            channel=identity.channel,
            conn=identity.connection_id,
            conversation_id=identity.conversation_id,
            agent_id=identity.agent_id,
            user_id=identity.user_id,
            dialect=self.dialect,
            **fields,
        )

    def _voice(self, agent: Agent) -> tuple[str, tuple[Event, ...]]:
        """Return the voice to speak with, and what to tell a client that asked for one that does not exist."""
        asked = self._argument("voice")
        if not asked:
            return agent.style.voice, ()
        voice = valid_voice(asked)
        if voice is None:
            message = f"There is no such voice; the agent's is used. Voices: {', '.join(VOICES)} and custom ids."
            return agent.style.voice, (error_event("invalid_voice", message, param="voice"),)
        if asked.lower() in RETIRED_VOICES:
            self.context.logger.info("retired voice mapped", conn=self.connection_id, asked=asked.lower(), voice=voice)
        return voice, ()


class BrowserDoor(RealtimeDoor):
    """`/`: for the browser, in the dialect of the first Realtime generation; a plain GET shows the talk page."""

    dialect: Dialect = "preview"

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Answer with the socket or with the page."""
        if self.request.headers.get("Upgrade", "").lower() == "websocket":
            await super().get(*args, **kwargs)
        else:
            render_talk_page(self, self.context.settings)
