"""Several `python server.py` over one STATE_DIR, as the units voice@PORT are, and a stand-in for systemctl.

    with SimulatorThread(keys=[KEY]) as openai, Instances(tmp_path, 2, openai.url) as instances:
        instances.ports, instances.token(), instances.restart(port)
        subprocess.run(["deploy/rolling-restart.sh"], env=instances.environment_of_scripts())

The processes are started with NOTIFY_SOCKET, and a start is over when READY=1 was heard. It misleads in that nothing of
the unit but its ports holds for them, and that a child that dies is not started again.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import httpx

from cli.demo_data import DEMO_USER_ID
from core.settings import TABLE
from services.auth import load_development_secret, mint_development_token
from services.sql_store import SqlStore
from tests.fakes.browser import AGENTS

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-simulated-key-for-tests"
START_S = 30.0
STOP_S = 60.0

SYSTEMCTL = """#!{python}
import socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect({address!r})
    link.sendall("\\0".join(sys.argv[1:]).encode())
    link.shutdown(socket.SHUT_WR)
    status, _, text = link.makefile().read().partition("\\n")
print(text)
sys.exit(int(status))
"""


def instance_ports(count: int) -> list[int]:
    """Return free ports of four digits whose health ports, a 1 before them, are free too."""
    found: list[int] = []
    for port in random.sample(range(2_000, 9_999), 500):
        with suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", int(f"1{port}")))
            found.append(port)
        if len(found) == count:
            return sorted(found)
    raise AssertionError("no free ports")


class Instances:
    """Running instances.

    Args:
        folder: Empty folder for state, logs and database.
        count: How many.
        upstream: Realtime URL.
        settings: Further settings.

    Attributes:
        ports: Of the instances; health is at the port with a 1 before it.
        broken: Instances that will not come up when restarted.
        restarted: Instances restarted through the stand-in for systemctl, in order.
        heard: Lines each instance told systemd.
    """

    def __init__(self, folder: Path, count: int, upstream: str, settings: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self.ports = instance_ports(count)
        self.broken: set[int] = set()
        self.restarted: list[int] = []
        self.heard: dict[int, list[str]] = {port: [] for port in self.ports}
        self._environment = {
            **{name: "" for row in TABLE for name in (row.name, *row.aliases)},
            "PATH": os.environ.get("PATH", ""),
            "STATE_DIR": str(folder / "state"),
            "LOG_DIR": str(folder / "logs"),
            "LOG_ROTATION": "logrotate",
            "DATABASE_URL": f"sqlite:///{folder}/gateway.db",
            "OPENAI_REALTIME_URL": upstream,
            "OPENAI_API_KEY": KEY,
            "MAX_SESSIONS_PER_USER": "500",
            "DRAIN_TIMEOUT": "120",
            **(settings or {}),
        }
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._managers: dict[int, socket.socket] = {}
        self._commands = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._serve_commands, name="systemctl", daemon=True)

    # ------------------------------------------------------------------ instances

    def start(self, port: int) -> None:
        """Start an instance and wait until it said READY=1.

        Raises:
            TimeoutError: If it does not within half a minute.
        """
        address = f"{self._folder}/notify-{port}"
        Path(address).unlink(missing_ok=True)
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.bind(address)
        manager.settimeout(0.1)
        environment = {**self._environment, "PORT": str(port), "HEALTH_PORT": f"1{port}", "NOTIFY_SOCKET": address,
                       "WATCHDOG_USEC": "20000000"}  # fmt: skip
        if port in self.broken:
            environment["PORT"] = "none"
        with (self._folder / f"output-{port}").open("ab") as output:
            child = subprocess.Popen([sys.executable, "server.py"], cwd=ROOT, env=environment, stdout=output,
                                     stderr=output, stdin=subprocess.DEVNULL)  # fmt: skip
        self._children[port], self._managers[port] = child, manager
        until = time.monotonic() + START_S
        while "READY=1" not in self.listen(port):
            if child.poll() is not None or time.monotonic() > until:
                raise TimeoutError((self._folder / f"output-{port}").read_text()[-2000:])

    def listen(self, port: int) -> list[str]:
        """Return the lines an instance has told systemd since the last look; waits a moment for one."""
        lines: list[str] = []
        with suppress(TimeoutError):
            lines = self._managers[port].recv(4096).decode().split("\n")
        self.heard[port] += lines
        return lines

    def signal(self, port: int, number: int = signal.SIGTERM) -> None:
        """Send an instance a signal."""
        self._children[port].send_signal(number)

    def wait(self, port: int, timeout_s: float = STOP_S) -> int:
        """Wait for the end of an instance; returns its exit status."""
        until = time.monotonic() + timeout_s
        while self._children[port].poll() is None:
            if time.monotonic() > until:
                raise TimeoutError(f"{port} did not end")
            self.listen(port)
        self._managers[port].close()
        return int(self._children[port].returncode)

    def restart(self, port: int) -> None:
        """Stop an instance as systemd does, wait for its end, and start it again."""
        self.signal(port)
        self.wait(port)
        self.heard[port].clear()
        self.start(port)

    def health(self, port: int) -> dict[str, Any]:
        """Return what an instance says of itself on its health port."""
        answer: dict[str, Any] = httpx.get(f"http://127.0.0.1:1{port}/health", trust_env=False, timeout=10).json()
        return answer

    def ready_status(self, port: int) -> int:
        """Return the status of /ready on an instance's health port."""
        return httpx.get(f"http://127.0.0.1:1{port}/ready", trust_env=False, timeout=10).status_code

    def at(self, port: int) -> SimpleNamespace:
        """Return what a `Browser` needs to connect to an instance itself."""
        return SimpleNamespace(ws_url=f"ws://127.0.0.1:{port}/", token=self.token)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return rows of the database."""
        with closing(sqlite3.connect(self._folder / "gateway.db")) as database:
            return database.execute(query, values).fetchall()

    def token(self) -> str:
        """Return a token of the demo user that every instance accepts."""
        secret = load_development_secret(self._folder / "state")
        return mint_development_token(secret, DEMO_USER_ID, ttl_s=3600.0, now=time.time())

    def log_text(self) -> str:
        """Return everything the logs hold."""
        return "".join(path.read_text(encoding="utf-8") for path in sorted((self._folder / "logs").glob("*.log")))

    # ------------------------------------------------------------------ systemctl

    def environment_of_scripts(self) -> dict[str, str]:
        """Return an environment in which systemctl is the stand-in."""
        return {**os.environ, "SYSTEMCTL": str(self._folder / "systemctl")}

    def _serve_commands(self) -> None:
        while True:
            try:
                link, _ = self._commands.accept()
            except OSError:
                return
            with link:
                words = link.makefile().read().split("\0")
                status, text = self._command(words)
                link.sendall(f"{status}\n{text}".encode())

    def _command(self, words: list[str]) -> tuple[int, str]:
        match words:
            case ["list-units", *_]:
                live = [port for port in self.ports if self._children[port].poll() is None]
                return 0, "\n".join(f"voice@{port}.service loaded active running Voice server" for port in live)
            case ["show", "-p", "StatusText", "--value", unit]:
                told = [line for line in self.heard[_port(unit)] if line.startswith("STATUS=")]
                return 0, told[-1].removeprefix("STATUS=") if told else ""
            case ["restart", unit]:
                self.restarted.append(_port(unit))
                try:
                    self.restart(_port(unit))
                except TimeoutError:
                    return 1, ""
                return 0, ""
        return 2, "unknown command"

    # ------------------------------------------------------------------ beginning and end

    def __enter__(self) -> Self:
        (self._folder / "state").mkdir(parents=True)
        asyncio.run(self._seed())
        address = f"{self._folder}/systemctl.sock"
        self._commands.bind(address)
        self._commands.listen(8)
        script = self._folder / "systemctl"
        script.write_text(SYSTEMCTL.format(python=sys.executable, address=address), encoding="utf-8")
        script.chmod(0o755)
        self._thread.start()
        try:
            for port in self.ports:
                self.start(port)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    async def _seed(self) -> None:
        store = SqlStore.open(self._environment["DATABASE_URL"])
        await store.create_schema()
        for agent in AGENTS:
            await store.put_agent({**agent, "user_id": DEMO_USER_ID})
        await store.close()

    def _stop(self) -> None:
        for child in self._children.values():
            if child.poll() is None:
                child.terminate()
                child.send_signal(signal.SIGTERM)  # the second one forces
        for child in self._children.values():
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for manager in self._managers.values():
            manager.close()
        self._commands.shutdown(socket.SHUT_RDWR)
        self._commands.close()
        self._thread.join(5.0)


def _port(unit: str) -> int:
    return int(unit.removeprefix("voice@").removesuffix(".service"))
