"""Twilio's WebSocket handshake: its headers, its signature, and how it names a failure.

Headers are those of two published captures: no Origin, no extensions, no subprotocol.
"""
from __future__ import annotations

import asyncio
import ssl
from typing import Any
from urllib.parse import urlsplit

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.iostream import StreamClosedError
from tornado.simple_httpclient import HTTPTimeoutError
from tornado.websocket import WebSocketClientConnection, WebSocketError, websocket_connect

from core.twilio import signature
from simulator.twilio_faults import CallFaults
from simulator.twilio_settings import Account, TwilioSettings
from simulator.twilio_webhooks import WRONG_TOKEN

USER_AGENT = "Twilio.TmeWs/1.0"


class HandshakeFailed(Exception):
    """Raised when there is no socket; `code` is Twilio's error, `status` the HTTP answer if there was one."""

    def __init__(self, code: int, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.code = code
        self.status = status


async def handshake(
    url: str, *, account: Account, settings: TwilioSettings, faults: CallFaults
) -> WebSocketClientConnection:
    """Open the socket of a stream; close it, whatever happens.

    Args:
        url: As in the TwiML, without its query; this text is signed.
        account: Owner of the call.
        settings: Where the host really is, and how long to wait.
        faults: What is wrong with the handshake.

    Raises:
        HandshakeFailed: If no socket came about.
    """
    headers = {"Host": urlsplit(url).netloc, "User-Agent": USER_AGENT}
    if not faults.has("no_stream_signature"):
        token = WRONG_TOKEN if faults.has("wrong_stream_signature") else account.auth_token
        headers["X-Twilio-Signature"] = signature(url, (), token)
    if faults.has("browser_origin"):
        headers["Origin"] = "https://evil.example"
    limit = settings.handshake_timeout_s
    request = HTTPRequest(settings.reached(url), headers=headers, connect_timeout=limit, request_timeout=limit)
    opening = asyncio.ensure_future(websocket_connect(request))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:  # the call is over; a socket that opens all the same is nobody's
        opening.add_done_callback(_drop)
        raise
    except HTTPTimeoutError:
        raise HandshakeFailed(31901, "no answer") from None
    except HTTPClientError as error:
        if error.code == 599:  # Tornado's number for a connection that was closed before an answer
            raise HandshakeFailed(31902, "closed without an answer") from None
        raise HandshakeFailed(31920, f"HTTP {error.code} instead of 101", error.code) from None
    except WebSocketError:
        raise HandshakeFailed(31920, "an answer that is no upgrade") from None
    except ssl.SSLError as error:
        raise HandshakeFailed(31910, error.reason or "TLS") from None
    except (OSError, StreamClosedError) as error:
        raise HandshakeFailed(31902, type(error).__name__) from None


def _drop(opened: asyncio.Future[WebSocketClientConnection]) -> None:
    """Drop the TCP connection of a handshake, if it came about."""
    if not opened.cancelled() and opened.exception() is None:
        abort(opened.result())


def abort(connection: WebSocketClientConnection) -> None:
    """Drop the TCP connection without a close frame."""
    protocol: Any = connection.protocol
    connection.protocol = None  # type: ignore[assignment, unused-ignore] # marks it as closed; the class does the same
    if protocol is not None and protocol.stream is not None:
        protocol.stream.close()
