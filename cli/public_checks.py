"""What `./voice doctor` asks the server's own public address, as a browser or Twilio would reach it.

Some machines cannot reach their own public address, or nothing at all; that is a warning and no problem.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

import websocket

from cli.findings import Finding, ok, problem, skipped, warning
from core.settings import Settings

HANDSHAKE_S = 8.0
"""As long as a browser's user waits."""

HTTPS_PORT = 443

FEW_DAYS = 21
"""certbot renews when 30 days are left and tries twice a day: with 21 left it has failed for more than a week."""

NO_TIME_DAYS = 7

MISSING_TOKEN = 4000
"""How this server ends a connection without a token (docs/protocol.md, close codes): so we know it is this one."""


def public_address(settings: Settings) -> Finding:
    """Do WebSockets get through the public address to this server?"""
    parts = _public(settings)
    if parts is None:
        return skipped("public address", "PUBLIC_URL is not set")
    began = time.monotonic()
    try:
        with _link(parts) as link:
            code = _close_code(_handshake(parts, link))
    except websocket.WebSocketBadStatusException as error:
        return _no_upgrade(parts.netloc, error.status_code)
    except ssl.SSLError as error:
        return _bad_certificate("public address", parts.netloc, error)
    except (websocket.WebSocketException, OSError, ValueError) as error:
        return _unreachable("public address", parts.netloc, error)
    if code != MISSING_TOKEN:
        return problem("public address", f"{parts.netloc} is a WebSocket server, but not this one",
                       "Compare the nginx site with deploy/nginx.conf.")  # fmt: skip
    return ok("public address", f"WebSockets get through {parts.netloc}, answer in "
                                f"{(time.monotonic() - began) * 1000:.0f} ms")  # fmt: skip


def certificate(settings: Settings) -> Finding:
    """Is the certificate of the public address good for some time?"""
    parts = _public(settings)
    if parts is None or _is_plain(parts):
        return skipped("certificate", "PUBLIC_URL is not set" if parts is None else "PUBLIC_URL is not encrypted")
    host = parts.hostname or ""
    try:
        with _link(parts) as link:
            assert isinstance(link, ssl.SSLSocket)
            ends_at = ssl.cert_time_to_seconds(str((link.getpeercert() or {})["notAfter"]))
    except ssl.SSLError as error:
        return _bad_certificate("certificate", host, error)
    except (OSError, KeyError, ValueError) as error:
        return _unreachable("certificate", host, error)
    days = int((ends_at - time.time()) // 86_400)
    if days < FEW_DAYS:
        state = problem if days < NO_TIME_DAYS else warning
        return state("certificate", f"of {host} ends in {days} days", "sudo certbot renew && systemctl reload nginx")
    return ok("certificate", f"of {host} is good for {days} days")


def tls_context() -> ssl.SSLContext:
    """Return how the outside checks us: with the certificates this machine trusts."""
    return ssl.create_default_context()


def _public(settings: Settings) -> SplitResult | None:
    return urlsplit(settings.public_url) if settings.public_url else None


def _is_plain(parts: SplitResult) -> bool:
    return parts.scheme in {"http", "ws"}


def _link(parts: SplitResult) -> socket.socket:
    """Return a connection to the address, with TLS where it says so; close it.

    Raises:
        OSError: If it cannot be reached, `ssl.SSLError` if it is not trusted.
    """
    host = parts.hostname or ""
    plain = socket.create_connection((host, parts.port or (80 if _is_plain(parts) else HTTPS_PORT)), HANDSHAKE_S)
    return plain if _is_plain(parts) else tls_context().wrap_socket(plain, server_hostname=host)


def _handshake(parts: SplitResult, link: socket.socket) -> websocket.WebSocket:
    """Shake hands on a connection: the library would not close one whose certificate it refuses."""
    url = f"{'ws' if _is_plain(parts) else 'wss'}://{parts.netloc}/"
    return websocket.create_connection(url, timeout=HANDSHAKE_S, suppress_origin=True, socket=link)


def _close_code(link: websocket.WebSocket) -> int | None:
    """Return the code the server closes with; None when it does something else."""
    for _ in range(3):  # an error event, the close, and one to spare
        try:
            opcode, data = link.recv_data()
        except (websocket.WebSocketException, OSError):
            return None
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return int.from_bytes(data[:2], "big") if len(data) >= 2 else None
        try:
            json.loads(data)
        except ValueError:
            return None
    return None


def _no_upgrade(host: str, status: int) -> Finding:
    text = f"{host} answered {status} instead of 101 to a WebSocket handshake"
    mend = {
        502: "No process listens where nginx looks: ./voice doctor --only instances --only nginx",
        504: "No process answers nginx: ./voice doctor --only instances --only nginx",
        429: "nginx limits this address; wait a minute.",
    }.get(status, "Pass Upgrade and Connection on: sudo ./voice init nginx --write --force && systemctl reload nginx")
    return problem("public address", text, mend)


def _bad_certificate(name: str, host: str, error: ssl.SSLError) -> Finding:
    why = getattr(error, "verify_message", "") or error.reason or "TLS failed"
    return problem(name, f"{host}: {why}", f"sudo certbot certonly --webroot -w /var/www/html -d {host}")


def _unreachable(name: str, host: str, error: Exception) -> Finding:
    why = getattr(error, "strerror", None) or type(error).__name__
    return warning(name, f"{host} cannot be reached from this machine ({why})",
                   "Look from another one: DNS entry, port 443 in the firewall, systemctl status nginx")  # fmt: skip


PUBLIC_CHECKS: tuple[tuple[str, Callable[[Settings], Finding]], ...] = (
    ("public address", public_address),
    ("certificate", certificate),
)
"""All of them, in the order they are shown."""
