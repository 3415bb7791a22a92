"""The systems under test, each a process between the load's clients and its upstream.

`ours` is the real `python server.py` with everything switched on; the others are what it is compared with.
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
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench import cores
from bench.child import REPOSITORY
from bench.interruption import undisturbed
from bench.meters import family
from bench.shapes import Channel, update_for
from bench.stand import Stand, free_port

START_S = 20.0
"""Start takes a second on an idle machine; the rest is for a busy one."""

STOP_S = 10.0

NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream realtime {{ server 127.0.0.1:{upstream_port}; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass {scheme}://realtime;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header Host localhost;
            proxy_buffering off;
            proxy_read_timeout 75s;
            proxy_ssl_protocols TLSv1.2 TLSv1.3;
            proxy_ssl_session_reuse on;
        }}
    }}
}}
"""
"""One worker, the same WebSockets to the same upstream."""


class NotStarted(Exception):
    """Raised when a system under test does not start."""


class System:
    """A system without a process of its own: the clients reach the upstream directly.

    Attributes:
        name: As it stands in the results.
        port: Where clients connect.
    """

    speaks_twilio = False
    """Whether it takes Twilio's messages from a call and gives such; others pass on what they get."""

    def __init__(self, name: str, upstream_port: int, *, is_tls: bool, certificate: Path | None = None) -> None:
        self.name = name
        self.port = upstream_port
        self._upstream_port, self._is_tls, self._certificate = upstream_port, is_tls, certificate
        self._folder = tempfile.TemporaryDirectory(prefix="voice-bench-", ignore_cleanup_errors=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """Where the process keeps its files; removed at the end."""
        return Path(self._folder.name)

    @property
    def pids(self) -> list[int]:
        """The processes whose time and memory count."""
        return family(self._process.pid) if self._process is not None else []

    def seats(self, channel: Channel, count: int) -> list[dict[str, Any]]:
        """Return how so many clients connect; see `bench.clients.Seat`."""
        scheme = "wss" if self._is_tls and self._process is None else "ws"
        url = f"{scheme}://127.0.0.1:{self.port}/v1/realtime?model=bench"
        seat = {"url": url, "headers": {}, "greeting": [update_for(channel).decode()]}
        sids = [f"MZ{number:032x}" if channel == "phone" else "" for number in range(count)]
        return [{**seat, "stream_sid": sid} for sid in sids]

    def __enter__(self) -> Self:
        if self._command():
            self.port = free_port()
            try:
                with (self.folder / "output").open("wb") as output, undisturbed():
                    self._process = subprocess.Popen(
                        self._command(), cwd=REPOSITORY, env=self._environment(), stdin=subprocess.DEVNULL,
                        stdout=output, stderr=output, start_new_session=True,  # Ctrl-C is for us, who then end it
                    )  # fmt: skip
                cores.bind([self._process.pid], cores.of_system())
                self._wait()
                cores.bind(self.pids, cores.of_system())
            except BaseException:
                self._stop()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _command(self) -> list[str]:
        return []

    def _environment(self) -> Mapping[str, str]:
        trusted = {"SSL_CERT_FILE": str(self._certificate)} if self._certificate is not None else {}
        return {**os.environ, **trusted}

    @property
    def upstream_url(self) -> str:
        """Where the system finds the voice service."""
        return f"{'wss' if self._is_tls else 'ws'}://127.0.0.1:{self._upstream_port}/v1/realtime"

    def _wait(self) -> None:
        """Wait until the port takes connections."""
        assert self._process is not None
        until = time.monotonic() + START_S
        while True:
            try:
                with closing(socket.create_connection(("127.0.0.1", self.port), 1.0)):
                    return
            except OSError:
                said = (self.folder / "output").read_text(errors="replace")[-2000:]
                if self._process.poll() is not None or time.monotonic() > until:
                    raise NotStarted(f"{self.name} did not start: {said}") from None
                time.sleep(0.03)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()


class Nginx(System):
    """Debian's nginx with one worker: what moving these bytes costs at least."""

    def _command(self) -> list[str]:
        program = nginx_program()
        if program is None:
            raise NotStarted("nginx is not installed: apt-get install nginx")
        configuration = self.folder / "nginx.conf"
        configuration.write_text(
            NGINX.format(
                folder=self.folder, port=self.port, upstream_port=self._upstream_port,
                scheme="https" if self._is_tls else "http",
            )
        )  # fmt: skip
        return [program, "-p", str(self.folder), "-c", str(configuration)]


class Naive(System):
    """Tornado as it comes on both legs, every message through `json.loads`."""

    speaks_twilio = True

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "bench.naive", str(self.port), self.upstream_url]

    def seats(self, channel: Channel, count: int) -> list[dict[str, Any]]:
        """Return how so many clients connect: calls as Twilio's, without any proof of who they are."""
        if channel == "browser":
            return super().seats(channel, count)
        stand = Stand(self.folder / "stand")
        return stand.call_seats(f"ws://127.0.0.1:{self.port}/call", count)


SUPABASE = {
    "DATABASE_URL": "",
    "SUPABASE_URL": "http://127.0.0.1:9",  # the discard port
    "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_" + "of-nobody",
}


class Ours(System):
    """The real server: SQLite, development tokens, signed calls, transcripts, metrics, the preview dialect.

    Args:
        wire: `fast` or `tornado`, setting WIRE.
        has_supabase: Whether it stores in Supabase instead, which here does not answer: enough to start, not to talk.
    """

    speaks_twilio = True

    def __init__(
        self, name: str, upstream_port: int, *, wire: str = "fast", has_supabase: bool = False, **rest: Any
    ) -> None:
        super().__init__(name, upstream_port, **rest)
        self._wire, self._has_supabase = wire, has_supabase
        self._stand = Stand(self.folder / "stand")
        self.health_port = 0

    def _command(self) -> list[str]:
        return [sys.executable, "server.py"]

    def _environment(self) -> Mapping[str, str]:
        self.health_port = free_port()
        self._stand.build()
        return {
            **self._stand.environment(),
            **(SUPABASE if self._has_supabase else {}),
            **{key: value for key, value in super()._environment().items() if key in {"PATH", "SSL_CERT_FILE", "HOME"}},
            "PORT": str(self.port),
            "HEALTH_PORT": str(self.health_port),
            "OPENAI_REALTIME_URL": self.upstream_url,
            "WIRE": self._wire,
        }

    def seats(self, channel: Channel, count: int) -> list[dict[str, Any]]:
        """Return how so many clients connect: signed in, or with a call announced for each."""
        if channel == "browser":
            return self._stand.browser_seats(f"ws://127.0.0.1:{self.port}/", count)
        return self._stand.call_seats(f"ws://127.0.0.1:{self.port}{self._stand.stream_path}", count, announce=True)


def nginx_program() -> str | None:
    """Return where nginx is; None when it is not installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
