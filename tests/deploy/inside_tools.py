"""What the program inside the machine needs: commands, waiting, tokens, a browser's side of a talk, and the probe."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import websocket

from cli.demo_data import DEMO_USER_ID
from services.auth.signatures import signed
from tests.fakes.browser import PLAIN_ID
from tests.fakes.nginx import NAME

CODE = Path("/opt/websocket-voice-server")
CONFIGURATION = Path("/etc/websocket-voice-server")
STATE = Path("/var/lib/websocket-voice-server")
LOGS = Path("/var/log/websocket-voice-server")
KEY = "sk-canary-of-the-credential-0123456789"
JWT_SECRET = "a-secret-of-this-test-with-32-bytes!"
NUMBER = "+15005551234"
DRAIN_S = 4
PATIENCE_S = 45.0

PROBE = """
import json, mmap, os, resource, socket
from pathlib import Path

def says(act):
    try:
        act()
    except (OSError, PermissionError) as error:
        return type(error).__name__
    return "done"

credentials = Path(os.environ["CREDENTIALS_DIRECTORY"])
print(json.dumps({
    "uid_name": __import__("pwd").getpwuid(os.getuid()).pw_name,
    "write_etc": says(lambda: Path("/etc/x").write_text("x")),
    "write_code": says(lambda: Path("/opt/websocket-voice-server/x").write_text("x")),
    "read_settings_folder": says(lambda: Path("/etc/websocket-voice-server/openai-api-key").read_text()),
    "list_root_home": says(lambda: os.listdir("/root")),
    "read_meminfo": says(lambda: Path("/proc/meminfo").read_text()),
    "see_init": says(lambda: Path("/proc/1/cmdline").read_text()),
    "netlink": says(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "packet": says(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "nice": says(lambda: os.nice(-5)),
    "write_and_execute": says(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)),
    "write_state": says(lambda: Path(os.environ["STATE_DIRECTORY"], "probe").write_text("x")),
    "write_logs": says(lambda: Path(os.environ["LOGS_DIRECTORY"], "probe").write_text("x")),
    "credentials": sorted(file.name for file in credentials.iterdir()),
    "credential_length": len((credentials / "openai-api-key").read_text()),
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
    "capabilities": Path("/proc/self/status").read_text().partition("CapBnd:")[2].split()[0],
}))
"""
"""Program of a service with the sandbox of the shipped unit: tries what it may and what it may not, prints JSON."""


def sh(*command: str, **options: Any) -> str:
    """Run a program and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S + 30, **options)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def show(unit: str, name: str) -> str:
    """Return a property of a unit."""
    return sh("systemctl", "show", "-p", name, "--value", unit).strip()


def until(check: Callable[[], Any], patience_s: float = PATIENCE_S) -> float:
    """Wait until something is true; returns the seconds it took, -1 when it never was."""
    began = time.monotonic()
    while time.monotonic() - began < patience_s:
        with suppress(OSError, httpx.HTTPError):
            if check():
                return time.monotonic() - began
        time.sleep(0.02)
    return -1.0


def ready(port: int) -> bool:
    """Return whether an instance takes new sessions."""
    return httpx.get(f"http://127.0.0.1:1{port}/ready", timeout=2, trust_env=False).status_code == 200


def token() -> str:
    """Return a token of the demo user."""
    now = int(time.time())
    claims = {"iss": "a test", "aud": "authenticated", "role": "authenticated", "sub": DEMO_USER_ID, "iat": now,
              "exp": now + 3600}  # fmt: skip
    return signed(claims, JWT_SECRET)


class Talk:
    """A conversation of a browser: through nginx with TLS, or with an instance itself.

    Args:
        port: Of the instance; None goes through nginx.
    """

    def __init__(self, port: int | None = None) -> None:
        query = f"?token={token()}&agent_id={PLAIN_ID}"
        if port is None:
            plain = socket.create_connection((NAME, 443), timeout=10)
            wrapped = ssl.create_default_context().wrap_socket(plain, server_hostname=NAME)
            address = f"wss://{NAME}/{query}"
            self._socket = websocket.create_connection(address, socket=wrapped, suppress_origin=True)
        else:
            self._socket = websocket.create_connection(f"ws://127.0.0.1:{port}/{query}", timeout=10,
                                                       suppress_origin=True)  # fmt: skip
        self.events: list[dict[str, Any]] = []
        self.close_code = 0
        self.until("session.updated")

    def until(self, event_type: str) -> bool:
        """Read until an event of this type came; False when the server closed before."""
        while True:
            opcode, data = self._socket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                self.close_code = int.from_bytes(data[:2], "big")
                return False
            self.events.append(json.loads(data))
            if self.events[-1]["type"] == event_type:
                return True

    def ask(self) -> bool:
        """Ask something; returns whether it was answered."""
        content = [{"type": "input_text", "text": "Hello?"}]
        item = {"type": "message", "role": "user", "content": content}
        self._socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        self._socket.send(json.dumps({"type": "response.create"}))
        return self.until("response.done")

    def leave(self) -> None:
        """Say goodbye."""
        self._socket.close()
