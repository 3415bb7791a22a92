"""A throw-away PostgreSQL server on this machine, for the demo and the tests.

Uses Debian's `postgresql` package but none of its clusters: everything lives in one new folder and on loopback, and the
server is a child of the caller.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

START_DEADLINE_S = 30.0
"""Takes 0.5 s on an idle machine; a busy one gets time."""

STOP_DEADLINE_S = 20.0

SERVER_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # Its data lives no longer than the process: speed instead of durability.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "client_min_messages": "warning",  # Supabase Lite prints every NOTICE
}


class LocalServerError(Exception):
    """Raised when a local server could not be installed, started or talked to; the text says what to do."""


def free_port() -> int:
    """Return a loopback port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def postgres_tool(name: str) -> str:
    """Return the path of a PostgreSQL program: from PG_BIN, the newest Debian version, or PATH."""
    folder = os.environ.get("PG_BIN")
    if folder:
        return str(Path(folder) / name)
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    found = str(versions[-1]) if versions else shutil.which(name)
    if not found:
        raise LocalServerError(f"{name} was not found: apt-get install postgresql, or set PG_BIN to its folder")
    return found


class LocalPostgres:
    """A context manager around one server; every start is an empty cluster with trust authentication on loopback."""

    def __init__(self, folder: Path | None = None) -> None:
        """Make the server's folder inside `folder`, by default among the temporary files; it is removed at the end."""
        self.folder = Path(tempfile.mkdtemp(prefix="voice-local-", dir=folder))
        self.folder.chmod(0o711)  # the server's own user must get through, as root cannot run it
        self.port = free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self._as_user: dict[str, Any] = (
            {"user": "postgres", "group": "postgres", "extra_groups": ()} if os.geteuid() == 0 else {}
        )

    @property
    def database_url(self) -> str:
        """Address of the database `postgres` as its superuser."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self.stop)
            self.start()
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Return when the server takes connections; raises LocalServerError when it does not."""
        home = self.folder / "postgres"
        home.mkdir(mode=0o700)
        if self._as_user:
            shutil.chown(home, "postgres", "postgres")
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "HOME": str(home)}
        data = str(home / "data")
        init = [postgres_tool("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        done = subprocess.run(
            [*init, "--locale=C.UTF-8"], env=environment, cwd=home, capture_output=True, text=True, **self._as_user
        )
        if done.returncode:
            raise LocalServerError(f"initdb failed: {done.stderr.strip()}")
        command = [postgres_tool("postgres"), "-D", data, "-p", str(self.port), "-k", str(home)]
        for name, value in SERVER_SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "postgres.log").open("wb") as log:
            self._server = subprocess.Popen(
                command, env=environment, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as_user
            )
        self._wait_until_ready(self._server)

    def sql(self, text: str, database: str = "postgres") -> str:
        """Run SQL as superuser and return what it selected, unaligned; raises LocalServerError with psql's message."""
        url = f"postgresql://postgres@127.0.0.1:{self.port}/{database}"
        command = [postgres_tool("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-", url]
        done = subprocess.run(command, input=text, capture_output=True, text=True)  # not -c: others see arguments
        if done.returncode:
            raise LocalServerError(done.stderr.strip())
        return done.stdout.strip()

    def stop(self) -> None:
        """Stop the server and remove its folder."""
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            try:
                self._server.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_until_ready(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while subprocess.run([postgres_tool("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]).returncode:
            if server.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "postgres.log").read_text(errors="replace")
                raise LocalServerError(f"PostgreSQL did not start: {log[-2000:]}")
            time.sleep(0.02)
