"""`python server.py` as a child process, and the simulated OpenAI beside it, for tests that come from outside.

    with SimulatorThread(keys=["sk-…"]) as openai, ServerProcess({**project.environment(), …}) as server:
        server.ws_url, server.log_text(), server.hang_up()

It misleads where `faster` is given: the child then begins with some of the product's constants shortened, as nobody
waits a minute for a cache; the program is otherwise the one that `python server.py` runs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from cli.local_postgres import free_port
from core.settings import TABLE
from simulator.openai import RealtimeSimulator

REPOSITORY = Path(__file__).resolve().parents[2]

DEADLINE_S = 30.0
"""Start and stop take a second on an idle machine; the rest is for a busy one."""


class ServerProcess:
    """A running server.

    Args:
        environment: Settings; what is not named is unset, whatever `.env` and the caller's environment say.
        faster: Constants to shorten, `{"services.auth.auth_server.CACHE_S": 1.0}`.
    """

    def __init__(self, environment: Mapping[str, str], *, faster: Mapping[str, float] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="voice-server-", ignore_cleanup_errors=True)
        self.port, self.health_port = free_port(), free_port()
        self.logs_dir = Path(self._folder.name) / "logs"
        self._environment = {
            **{name: "" for row in TABLE for name in (row.name, *row.aliases)},
            "PATH": os.environ.get("PATH", ""),
            "STATE_DIR": self._folder.name,
            "LOG_DIR": str(self.logs_dir),
            "LOG_LEVEL": "debug",
            "PORT": str(self.port),
            "HEALTH_PORT": str(self.health_port),
            "DRAIN_TIMEOUT": "1",
            **environment,
        }
        self._faster = dict(faster or {})
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of the page and the JSON doors, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Address of the browser's door."""
        return f"ws://127.0.0.1:{self.port}/"

    def __enter__(self) -> Self:
        output = (Path(self._folder.name) / "output").open("wb")
        with output:
            self._child = subprocess.Popen(
                self._command(), cwd=REPOSITORY, env=self._environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output,
            )  # fmt: skip
        try:
            self._wait_until_up(self._child)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def log_text(self) -> str:
        """Return everything both log files hold."""
        return "".join(path.read_text(encoding="utf-8") for path in sorted(self.logs_dir.glob("*.log")))

    def hang_up(self) -> None:
        """Send SIGHUP and wait until the server has acted on it."""
        assert self._child is not None
        before = self.log_text().count("keys forgotten")
        self._child.send_signal(signal.SIGHUP)
        until = time.monotonic() + DEADLINE_S
        while self.log_text().count("keys forgotten") == before:
            assert time.monotonic() < until, "SIGHUP was not acted on"
            time.sleep(0.02)

    def metric(self, sample: str) -> float:
        """Return a sample of the metrics, 0 when there is none: `name{label="value"}`."""
        for line in httpx.get(f"http://127.0.0.1:{self.health_port}/metrics", trust_env=False).text.splitlines():
            if line.startswith(sample + " "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def _command(self) -> list[str]:
        if not self._faster:
            return [sys.executable, "server.py"]
        lines = ["import importlib, sys"]
        for name, value in self._faster.items():
            module, _, constant = name.rpartition(".")
            lines.append(f"module = importlib.import_module({module!r}); module.{constant}  # must exist")
            lines.append(f"module.{constant} = {value!r}")
        return [sys.executable, "-c", "\n".join([*lines, "import server", "sys.exit(server.main())"])]

    def _wait_until_up(self, child: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + DEADLINE_S
        while True:
            try:
                if httpx.get(f"{self.url}/health", trust_env=False).status_code:
                    return
            except httpx.TransportError:
                output = (Path(self._folder.name) / "output").read_text(errors="replace")
                assert child.poll() is None, f"the server did not start: {output[-2000:]}"
                assert time.monotonic() < until, f"the server does not answer: {output[-2000:]}"
                time.sleep(0.03)

    def _stop(self) -> None:
        child = self._child
        if child is not None and child.poll() is None:
            child.terminate()
            try:
                child.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._folder.cleanup()


class _Dials(deque[Any]):
    """The simulator's list of sessions, which also notes when each was asked for."""

    def __init__(self) -> None:
        super().__init__(maxlen=500)
        self.times: list[float] = []

    def append(self, record: Any) -> None:
        self.times.append(time.monotonic())
        super().append(record)


class SimulatorThread:
    """A simulated OpenAI in a thread of its own.

    Attributes:
        keys: The only API keys it accepts; may be changed at any time.
        dialled_at: Monotonic times at which somebody connected.
    """

    def __init__(self, keys: Iterable[str], **settings: Any) -> None:
        self.keys = list(keys)
        chosen = {"speed": 0, "think_s": 0.0, "transcription_delay_s": 0.0, **settings}
        self.simulator = RealtimeSimulator(keys=self.keys, **chosen)
        self._dials = _Dials()
        self.simulator.sessions = self._dials
        self.dialled_at = self._dials.times
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulator", daemon=True)

    @property
    def url(self) -> str:
        """The realtime URL."""
        return self.simulator.url

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.simulator.start(), self._loop).result(DEADLINE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self.simulator.stop(), self._loop).result(DEADLINE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()
