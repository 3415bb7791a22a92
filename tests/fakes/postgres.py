"""A real PostgreSQL server for the length of a test: temporary folder, random port, loopback only.

    with Postgres() as server:
        server.url()                       # postgresql://postgres@127.0.0.1:…/postgres
        server.new_database()              # the URL of an empty database
        server.sql("select 1")

It misleads in two ways: durability is off (fsync, synchronous_commit, full_page_writes), so it commits faster than a
real server and would not survive a power cut; and it trusts every local connection, so passwords prove nothing.
Run it by hand with `python tests/fakes/postgres.py`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

START_TIMEOUT_S = 30.0
"""initdb takes 0.5 s and the start 0.1 s on an idle machine; the rest is for a busy one."""

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "client_min_messages": "warning",
}


def find_tool(name: str) -> str | None:
    """Return the path of a PostgreSQL program of the newest installed version, or None."""
    versions = [path for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}") if path.parts[4].isdigit()]
    if versions:
        return str(max(versions, key=lambda path: int(path.parts[4])))
    return shutil.which(name)


def missing() -> str | None:
    """Return why PostgreSQL cannot be started here, or None."""
    absent = [name for name in ("initdb", "postgres", "psql") if find_tool(name) is None]
    return f"PostgreSQL is not installed: no {', '.join(absent)}" if absent else None


class Postgres:
    """One throw-away server, a child process of the caller. PostgreSQL refuses root, which becomes user `postgres`."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="pg-"))
        self.base.chmod(0o711)
        self.port = _free_port()
        self._home = self.base / "home"
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._as_user = {"user": "postgres", "group": "postgres", "extra_groups": ()}

    def __enter__(self) -> Postgres:
        try:
            self._home.mkdir(mode=0o700)
            if self._as_user:
                shutil.chown(self._home, "postgres", "postgres")
            self._init()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """Return the URL of a database; nobody is asked for a password."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.sql(f"create database {name}")
        return self.url(name)

    def copy_database(self, url: str) -> str:
        """Create a copy of a database nobody is connected to and return its URL; quicker than migrating again."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.sql(f"create database {name} template {urlsplit(url).path[1:]}")
        return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))

    def sql(self, *statements: str, url: str | None = None) -> str:
        """Run statements in one connection and return psql's unaligned output.

        Raises:
            RuntimeError: With the server's message, if one of them fails.
        """
        command = [_tool("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url or self.url()]
        for statement in statements:
            command += ["-c", statement]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT_S)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    def start(self) -> None:
        """Start the server and wait until it answers; the data of an earlier run is there again."""
        command = [_tool("postgres"), "-D", str(self._home / "data")]
        for name, value in {**SETTINGS, "port": str(self.port), "unix_socket_directories": str(self._home)}.items():
            command += ["-c", f"{name}={value}"]
        with (self.base / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment(), cwd=self._home, **self._as_user
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.base / "postgres.log").read_text())
            time.sleep(0.02)

    def stop(self) -> None:
        """Shut down, breaking connections; the data stays until the context ends."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # "fast": does not wait for clients
            self._process.wait(START_TIMEOUT_S)
        self._process = None

    def _init(self) -> None:
        command = [_tool("initdb"), "-D", str(self._home / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        subprocess.run(
            [*command, "--locale=C.UTF-8", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            env=self._environment(),
            cwd=self._home,
            timeout=START_TIMEOUT_S,
            **self._as_user,
        )

    def _answers(self) -> bool:
        try:
            self.sql("select 1")
        except RuntimeError:
            return False
        return True

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "HOME": str(self._home)}

    def _remove(self) -> None:
        self.stop()
        shutil.rmtree(self.base, ignore_errors=True)


def _tool(name: str) -> str:
    path = find_tool(name)
    if path is None:
        raise RuntimeError(f"{name} not found: install PostgreSQL")
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    with Postgres() as here:
        print(here.url(), flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            sys.exit(0)
