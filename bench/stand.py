"""What the server under test finds when it starts: settings, users with agents, and the calls announced to it."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.shapes import connected_message, start_message, stop_message
from core.calls import Call, lifetime, token_hash
from core.settings import TABLE
from core.twilio import signature
from core.twiml import STREAM_PATH, stream_url
from services.auth import load_development_secret, mint_development_token
from services.sql_store import SqlStore

USERS = 64
"""Sessions belong to so many people in turn: the per-user look-ups of a real server, not one row that is always hot."""

TOKEN_S = 12 * 3600

PUBLIC_URL = "https://voice.example.com"
"""The name calls are signed over; nobody resolves it."""

ACCOUNT_SID = "AC" + "b" * 32
AUTH_TOKEN = "bench" * 6 + "00"
"""Signs this machine's calls to itself."""


class Stand:
    """A folder with the database and the state of one server.

    Args:
        folder: Made by `build`.
    """

    stream_path = STREAM_PATH

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._calls = 0
        self._run = secrets.token_hex(4)

    def environment(self) -> dict[str, str]:
        """Return the settings but for ports and upstream; whatever is not named here is unset."""
        return {
            **{name: "" for row in TABLE for name in (row.name, *row.aliases)},
            "NODE_ENV": "development",
            "DATABASE_URL": self._database_url,
            "STATE_DIR": str(self._folder),
            "LOG_DIR": str(self._folder / "logs"),
            "OPENAI_API_KEY": "sk-" + "of-nobody",
            "MAX_CONNECTIONS": "20000",
            "MAX_SESSIONS_PER_USER": "20000",
            "DRAIN_TIMEOUT": "0",
            "PUBLIC_URL": PUBLIC_URL,
            "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
            "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
            "TWILIO_API_URL": "http://127.0.0.1:9",  # the discard port: a bench hangs nobody up
        }

    def build(self) -> None:
        """Make the database with one agent for each user."""
        self._folder.mkdir(parents=True, exist_ok=True)
        load_development_secret(self._folder)
        asyncio.run(self._fill())

    async def _fill(self) -> None:
        store = SqlStore.open(self._database_url)
        await store.create_schema()
        for number in range(USERS):
            columns = {"name": f"Agent {number}", "voice": "marin",
                       "instructions": "You answer the telephone of a dental practice, in one or two sentences. " * 5}
            await store.put_agent({"id": _agent(number), "user_id": _user(number), **columns})
        await store.close()

    @property
    def _database_url(self) -> str:
        return f"sqlite:///{self._folder}/bench.db"

    def browser_seats(self, url: str, count: int) -> list[dict[str, Any]]:
        """Return how so many signed-in browsers connect."""
        secret = load_development_secret(self._folder)
        tokens = [
            mint_development_token(secret, _user(number), ttl_s=TOKEN_S, now=time.time())
            for number in range(min(count, USERS))
        ]
        return [
            {"url": f"{url}?token={tokens[index % USERS]}&agent_id={_agent(index % USERS)}", "headers": {},
             "greeting": []}
            for index in range(count)
        ]  # fmt: skip

    def call_seats(self, url: str, count: int, *, announce: bool = False) -> list[dict[str, Any]]:
        """Return how so many calls connect.

        Args:
            url: Of the media stream.
            announce: Whether their rows are put into the database, as the main app or the voice webhook does; they
                wait 300 s for their stream.
        """
        calls = []
        for _ in range(count):
            self._calls += 1
            number = f"{self._run}{self._calls:024x}"
            calls.append((f"CA{number}", f"MZ{number}", secrets.token_urlsafe(16)))
        if announce:
            asyncio.run(self._announce([(call_sid, token) for call_sid, _, token in calls]))
        signed = signature(stream_url(PUBLIC_URL), [], AUTH_TOKEN)
        return [
            {
                "url": url,
                "headers": {"X-Twilio-Signature": signed},
                "greeting": [
                    connected_message().decode(),
                    start_message(stream_sid, call_sid, ACCOUNT_SID, token).decode(),
                ],
                "farewell": [stop_message(stream_sid, call_sid, ACCOUNT_SID).decode()],
                "stream_sid": stream_sid,
            }
            for call_sid, stream_sid, token in calls
        ]

    async def _announce(self, calls: list[tuple[str, str]]) -> None:
        store = SqlStore.open(self._database_url)
        created_at, expires_at = lifetime(datetime.now(UTC))
        for index, (call_sid, token) in enumerate(calls):
            call = Call(call_sid, _agent(index % USERS), _user(index % USERS), ACCOUNT_SID)
            await store.put_call(call, token_hash=token_hash(token), created_at=created_at, expires_at=expires_at)
        await store.close()


def free_port() -> int:
    """Return a loopback port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _user(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"bench-user-{number}"))


def _agent(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"bench-agent-{number}"))
