"""The whole server and a simulated OpenAI in a thread of their own, for tests that come from outside.

    with Gateway() as gateway:
        gateway.ws_url, gateway.token(), gateway.agent_id
        gateway.simulator.faults, gateway.server.context, gateway.db, gateway.logs_dir
        gateway.run(gateway.server.context.store.agents(gateway.user_id))

Nothing in it is replaced: real sockets, a real SQLite file, the simulator of `./voice demo`.
It misleads in two ways: server, simulator and test share one process, so a test that keeps the interpreter busy slows
all of them; and the log is the process's, so only one gateway at a time has its lines in `logs_dir`.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
import warnings
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from cli.demo_data import DEMO_AGENTS, DEMO_USER_ID, RECEPTIONIST_ID
from core.settings import Settings, read_settings
from server import Server, start
from services import log as logs
from services.auth import load_development_secret, mint_development_token
from services.sql_store import SqlStore
from simulator.openai import RealtimeSimulator
from simulator.settings import SimulatorSettings

T = TypeVar("T")

DEADLINE_S = 30.0
"""Start and stop take 0.3 s on an idle machine; the rest is for a busy one."""


class Gateway:
    """A running server; every test that needs another configuration makes its own.

    Attributes:
        url, ws_url, health_url: Addresses; `ws_url` ends with a slash and takes the query of a browser.
        user_id: The demo user, owner of the demo agents.
        agent_id: The demo's receptionist.
        simulator: The simulated OpenAI: its `sessions`, `faults`, `transcripts`. Touch it only through `run`, except
            for reading.
        server: What `server.start` returned; its `context` has the services.
        db: Path of the SQLite file.
        logs_dir: Folder of combined.log and error.log.
    """

    def __init__(
        self, settings: dict[str, str] | None = None, *, simulator: SimulatorSettings | None = None,
        log_level: str = "debug", seed: tuple[dict[str, Any], ...] = DEMO_AGENTS,
    ) -> None:
        """Prepare a gateway; `with` starts it.

        Args:
            settings: Environment variables over the defaults of a test, such as `{"IDLE_TIMEOUT": "2000"}`.
            simulator: Behaviour of the simulated OpenAI; default: speech as fast as it can.
            log_level: Least level of combined.log.
            seed: Rows of the agents that exist.
        """
        self.user_id, self.agent_id = DEMO_USER_ID, RECEPTIONIST_ID
        self._folder = tempfile.TemporaryDirectory(prefix="voice-gateway-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        self.db, self.logs_dir, self.state_dir = folder / "gateway.db", folder / "logs", folder / "state"
        self._overrides = settings or {}
        self._log_level, self._seed = log_level, seed
        self.simulator = RealtimeSimulator(simulator or SimulatorSettings(speed=0, think_s=0.0))
        self.server: Server
        self.settings: Settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.run(self._start())
        except BaseException:
            self._end_loop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.run(self._stop())
        finally:
            self._end_loop()

    @property
    def url(self) -> str:
        """Address of the page and the JSON doors, without a slash at the end."""
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def ws_url(self) -> str:
        """Address of the browser's door."""
        return f"ws://127.0.0.1:{self.server.port}/"

    @property
    def health_url(self) -> str:
        """Address of the health port, without a path."""
        return f"http://127.0.0.1:{self.server.health_port}"

    def token(self, user: str | None = None, *, ttl_s: float = 3600.0) -> str:
        """Return a token the server accepts, by default the demo user's."""
        secret = load_development_secret(self.state_dir)
        return mint_development_token(secret, user or self.user_id, ttl_s=ttl_s, now=time.time())

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = DEADLINE_S) -> T:
        """Run a coroutine in the gateway's event loop and return its result."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise

    def log_text(self) -> str:
        """Return everything both log files hold."""
        return "".join(path.read_text(encoding="utf-8") for path in sorted(self.logs_dir.glob("*.log")))

    async def _start(self) -> None:
        upstream = await self.simulator.start()
        self.settings = read_settings(
            {
                "DATABASE_URL": f"sqlite:///{self.db}",
                "STATE_DIR": str(self.state_dir),
                "LOG_DIR": str(self.logs_dir),
                "LOG_LEVEL": self._log_level,
                "OPENAI_REALTIME_URL": upstream,
                "OPENAI_API_KEY": "sk-simulated-key-for-tests",
                "PORT": "0",
                **self._overrides,
            }
        )
        logs.configure(
            log_dir=self.settings.log_dir, level=self.settings.log_level, environment="test", workers=1, console=False
        )
        store = SqlStore.open(self.settings.database_url or "")
        await store.create_schema()
        for agent in self._seed:
            await store.put_agent(agent)
        await store.close()
        self.server = await start(self.settings, simulated=True)

    async def _stop(self) -> None:
        await self.server.stop()
        await self.simulator.stop()

    def _end_loop(self) -> None:
        """Stop the thread; what the loop still holds is cancelled, so that nothing is destroyed while pending."""
        cancelled = asyncio.run_coroutine_threadsafe(_cancel_rest(), self._loop)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # sockets a test left open on purpose
            try:
                cancelled.result(DEADLINE_S)
            finally:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(DEADLINE_S)
                self._loop.close()
                logs.shutdown()
                self._folder.cleanup()


async def _cancel_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=DEADLINE_S)
    await asyncio.get_running_loop().shutdown_default_executor()
