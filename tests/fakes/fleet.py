"""Servers of several processes over one STATE_DIR and one database, and the simulated OpenAI they talk to.

    with Fleet() as fleet, Browser(fleet) as browser:
        browser.live()
        fleet.workers(), fleet.worker_of(conversation_id), fleet.kill(worker)

Nothing in it is replaced: it runs `python server.py`. Which worker gets a connection is the kernel's choice, so what
must be somewhere is tried until it is there; see `browser_on`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from services.auth import load_development_secret, mint_development_token
from services.siblings import Answer, ask_all_sync, ask_one_sync, living
from services.sql_store import SqlStore
from tests.fakes.browser import AGENTS, USER_ID, Browser, eventually
from tests.fakes.server_process import ServerProcess, SimulatorThread

KEY = "sk-simulated-key-for-tests"

START_S = 30.0
"""Two workers listen after some two seconds on an idle machine; the rest is for a busy one."""

TRIES = 60
"""Connections tried for one that lands on a certain worker of two: chance misses all of them never."""


class Fleet(ServerProcess):
    """A server with several workers.

    Args:
        settings: Environment over that of a test; `WORKERS` is 2 if it is not among them.
        beside: Another fleet, whose STATE_DIR, database and simulated OpenAI are shared.
        faster: Constants of the parent to shorten; the workers have the product's.
    """

    def __init__(
        self,
        settings: dict[str, str] | None = None,
        *,
        beside: Fleet | None = None,
        faster: dict[str, float] | None = None,
    ) -> None:
        self.openai = beside.openai if beside is not None else SimulatorThread([KEY])
        self._beside = beside
        super().__init__({"WORKERS": "2", **(settings or {})}, faster=faster)
        self.state_dir = beside.state_dir if beside is not None else Path(self._folder.name) / "state"
        self.db = self.state_dir / "voice.db"
        self._environment |= {
            "STATE_DIR": str(self.state_dir),
            "DATABASE_URL": f"sqlite:///{self.db}",
            "OPENAI_API_KEY": KEY,
            "NODE_ENV": "test",
            **(settings or {}),
        }

    def _command(self) -> list[str]:
        """Start the parent with its constants shortened, which `server.py` would turn into with the product's."""
        *words, last = super()._command()
        return [*words, last.replace("import server", "import cli.supervise as server")]

    @property
    def health_url(self) -> str:
        """Address of the health port, without a path."""
        return f"http://127.0.0.1:{self.health_port}"

    @property
    def pid(self) -> int:
        """The parent's process."""
        assert self._child is not None
        return self._child.pid

    def __enter__(self) -> Self:
        if self._beside is None:
            self.openai.__enter__()
            asyncio.run(self._seed())
        self._environment["OPENAI_REALTIME_URL"] = self.openai.url
        try:
            super().__enter__()
            count = int(self._environment["WORKERS"])
            assert eventually(lambda: len(self.workers()) == count and self.all_listen(), START_S), self.log_text()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._beside is None:
            self.openai.__exit__(kind, error, trace)

    def token(self, user: str | None = None) -> str:
        """Return a token the server accepts."""
        secret = load_development_secret(self.state_dir)
        return mint_development_token(secret, user or USER_ID, ttl_s=3600.0, now=time.time())

    # ------------------------------------------------------------------ workers

    @property
    def run_dir(self) -> Path:
        """Where the workers meet."""
        return self.state_dir / "run"

    def workers(self) -> list[str]:
        """Return this server's living workers."""
        found = living(self.run_dir) if self.run_dir.exists() else []
        return [name for name in found if name.startswith(f"{self.port}-")]

    def all_listen(self) -> bool:
        """Return whether every living worker answers."""
        return set(self.workers()) <= set(ask_all_sync(self.run_dir, "GET", "/health-part"))

    def ask(self, worker: str, method: str, path: str, body: Any = None) -> Answer:
        """Return what one worker answers."""
        answer = ask_one_sync(self.run_dir, worker, method, path, body, timeout_s=5.0)
        assert answer is not None, f"{worker} does not answer"
        return answer

    def worker_pid(self, worker: str) -> int:
        """Return a worker's process."""
        return int(self.ask(worker, "GET", "/sessions").json()["pid"])

    def worker_of(self, conversation_id: str) -> str | None:
        """Return the worker that has a conversation."""
        for worker, answer in ask_all_sync(self.run_dir, "GET", "/sessions").items():
            if any(row["conversation_id"] == conversation_id for row in (answer.json() or {}).get("sessions", ())):
                return worker
        return None

    def kill(self, worker: str) -> float:
        """Kill a worker and return the seconds until a new process has its name and answers."""
        before = self.worker_pid(worker)
        os.kill(before, signal.SIGKILL)
        began = time.monotonic()

        def is_back() -> bool:
            answer = ask_one_sync(self.run_dir, worker, "GET", "/sessions")
            return answer is not None and answer.json()["pid"] != before

        assert eventually(is_back, 15.0), self.log_text()
        return time.monotonic() - began

    def browser_on(self, worker: str, **options: Any) -> tuple[Browser, str]:
        """Return a browser whose conversation is with this worker, and the conversation's id."""
        for _ in range(TRIES):
            browser = Browser(self, **options)  # type: ignore[arg-type]
            conversation_id = browser.live()
            found = eventually(lambda: self.worker_of(conversation_id), 5.0)  # noqa: B023 - called at once
            assert found, "no worker knows of the session"
            if found == worker:
                return browser, conversation_id
            browser.leave()
        raise AssertionError(f"no connection went to {worker}")

    # ------------------------------------------------------------------ what is told and stored

    def health(self) -> dict[str, Any]:
        """Return the health report."""
        report: dict[str, Any] = httpx.get(f"{self.health_url}/health", trust_env=False).json()
        return report

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Return rows of the database."""
        with closing(sqlite3.connect(self.db)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query, values)]

    def messages(self, conversation_id: str) -> list[str]:
        """Return what is stored of a conversation, in order."""
        query = "select content from messages where conversation_id in (?, ?) order by position"
        return [row["content"] for row in self.rows(query, conversation_id, conversation_id.replace("-", ""))]

    async def _seed(self) -> None:
        store = SqlStore.open(self._environment["DATABASE_URL"])
        await store.create_schema()
        for agent in AGENTS:
            await store.put_agent(agent)
        await store.close()
