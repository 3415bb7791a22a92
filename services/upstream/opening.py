"""Opening links: the address, one TLS context, the tickets and the deadlines they share."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import picows

from core.recovery import Loss

from .dialer import Dialer
from .link import CLOSE_WAIT_S, MAX_MESSAGE_BYTES, Link
from .tickets import TlsTickets

HANDSHAKE_S = 8.0
"""A handshake that takes longer is given up (operations reference, section 6, P7)."""

PING_IDLE_S = 15.0
PING_REPLY_S = 10.0
"""A dead peer is noticed within 25 s (operations reference, section 1.2)."""

READ_BUFFER_BYTES = 4096
"""Of one link at its begin: an audio delta of 20 ms fits in; it grows to what comes."""

TLS_BUFFER_BYTES = 16_384 + 64
"""What is encrypted, each way, between the socket and TLS: one record with its head. aiofastnet's own 257 KiB each way
cost a map and its pages for each link. Source: RFC 8446, section 5.1."""

_TLS_OPTIONS = {
    "ssl_incoming_bio_size": TLS_BUFFER_BYTES,
    "ssl_outgoing_bio_size": TLS_BUFFER_BYTES,
    "ssl_handshake_timeout": HANDSHAKE_S,
    "ssl_shutdown_timeout": CLOSE_WAIT_S,
}
"""Of aiofastnet, which otherwise keeps an abandoned connection with its buffers for 30 to 60 s."""


class UpstreamError(Exception):
    """Raised when no link could be opened; `loss` says why."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss.cause)
        self.loss = loss


@dataclass(frozen=True, slots=True)
class Target:
    """Where a link goes: the key, the model, and a stable hash of the person for the vendor's abuse detection."""

    key: str
    model: str
    safety_identifier: str = ""

    def __repr__(self) -> str:
        return f"Target(model={self.model!r})"


class Upstream:
    """Opens links to one Realtime service.

    Args:
        url: Address of the service, see OPENAI_REALTIME_URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._tls = ssl.create_default_context() if url.startswith("wss:") else None
        self._tls_options: dict[str, Any] = _TLS_OPTIONS if self._tls else {}
        self._tickets = TlsTickets(self._tls) if self._tls else None

    @property
    def resumed(self) -> int:
        """TLS handshakes so far that a ticket of an earlier one made shorter."""
        return self._tickets.resumed if self._tickets else 0

    async def open(self, target: Target) -> Link:
        """Return an open link within `HANDSHAKE_S`; call its `listen` next.

        Raises:
            UpstreamError: If the service could not be reached or refused.
        """
        link, dialer, is_given = Link(), Dialer(), False
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await self._shake_hands(link, dialer, target)
            if not link.was_opened:  # picows reports a connection that ends unanswered like one that was answered
                self._doubt_tickets()
                raise UpstreamError(Loss("closed"))
            is_given = True
            return link
        except picows.WSInvalidStatusError as error:
            raise UpstreamError(_refused(error)) from None
        except picows.WSError:
            raise UpstreamError(Loss("refused", code="not_a_websocket")) from None
        except TimeoutError:
            self._doubt_tickets()
            raise UpstreamError(Loss("timeout")) from None
        except OSError:
            self._doubt_tickets()
            raise UpstreamError(Loss("unreachable")) from None
        finally:
            if not is_given:  # also when the caller was cancelled at the very moment the link opened
                link.close()
                dialer.hang_up()

    def _doubt_tickets(self) -> None:
        """A service that cannot bear a ticket looks like this; an answer in HTTP says that TLS was well."""
        if self._tickets:
            self._tickets.rest()

    async def _shake_hands(self, link: Link, dialer: Dialer, target: Target) -> None:
        headers = {"Authorization": f"Bearer {target.key}"}
        if target.safety_identifier:
            headers["OpenAI-Safety-Identifier"] = target.safety_identifier
        await picows.ws_connect(
            lambda: link,
            self._address(target.model),
            ssl_context=self._tls,
            websocket_handshake_timeout=None,  # `open` has one for all, and takes the connection along
            extra_headers=headers,
            enable_auto_ping=True,
            auto_ping_idle_timeout=PING_IDLE_S,
            auto_ping_reply_timeout=PING_REPLY_S,
            enable_auto_pong=False,  # it would answer pings with reserved bits too
            max_frame_size=MAX_MESSAGE_BYTES,
            max_redirects=0,
            read_buffer_init_size=READ_BUFFER_BYTES,
            socket_factory=dialer.dial,
            **self._tls_options,
        )

    def _address(self, model: str) -> str:
        """Return the address with the model in its query; a query of the operator's own is kept."""
        parts = urlsplit(self._url)
        query = [(key, value) for key, value in parse_qsl(parts.query) if key != "model"]
        return urlunsplit(parts._replace(query=urlencode([*query, ("model", model)])))


def _refused(error: picows.WSInvalidStatusError) -> Loss:
    """Read status and Retry-After of the HTTP answer to a handshake."""
    response = getattr(error, "response", None)
    status = int(response.status) if response is not None else None
    waits = response.headers.get("Retry-After", "") if response is not None else ""
    return Loss("refused", status=status, retry_after_s=float(waits) if waits.isdigit() else None)
