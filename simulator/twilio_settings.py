"""How a simulated Twilio behaves: its accounts, its addresses, its limits."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from simulator.faults import Fault

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_PLAIN = {"https": "http", "wss": "ws", "http": "http", "ws": "ws"}


@dataclass(frozen=True)
class Account:
    """One account or subaccount.

    Attributes:
        auth_token: Signs the account's webhooks and handshakes and opens its REST resources.
        parent_sid: Of a subaccount; the parent's credentials open it too.
    """

    sid: str
    auth_token: str = field(repr=False)
    parent_sid: str = ""


# Sids have Twilio's shape: two letters and 32 hexadecimal digits.
DEMO_ACCOUNT = Account("AC" + "51" * 16, "0123456789abcdef" * 2)
DEMO_SUBACCOUNT = Account("AC" + "52" * 16, "fedcba9876543210" * 2, parent_sid=DEMO_ACCOUNT.sid)


@dataclass(frozen=True)
class TwilioSettings:
    """Everything that can be chosen; the defaults are a believable service.

    Attributes:
        accounts: The first one places calls that name no other.
        routes: Where a public name really is: `{"voice.example.com": "127.0.0.1:8080"}`. Such a host is reached without
            TLS, as behind a proxy that ends it; signatures and the Host header keep the public name.
        plain_loopback: Reach loopback addresses without TLS whatever the URL says, and take `ws://` there. The real
            service reaches no loopback address at all; with False, `ws://` is refused everywhere (31922).
        webhook_timeout_s: Twilio's own limit is not documented; 15 s is what its users report.
        handshake_timeout_s: The limit of 31901; no number is published.
        queue_limit_s: More queued audio than this is discarded (31931).
        max_call_s: Longest call; Twilio's is four hours, ours bounds what one record may hold.
        dial_s: How long the other party of a `<Dial>` talks.
        dial_status: `DialCallStatus` of every `<Dial>`.
        clips_only: `<Say>` speaks with the shipped clips even if espeak-ng is there.
        faults: What goes wrong in every call.
    """

    accounts: Sequence[Account] = (DEMO_ACCOUNT, DEMO_SUBACCOUNT)
    routes: Mapping[str, str] = field(default_factory=dict)
    plain_loopback: bool = True
    webhook_timeout_s: float = 15.0
    handshake_timeout_s: float = 10.0
    queue_limit_s: float = 600.0
    max_call_s: float = 3_600.0
    dial_s: float = 0.5
    dial_status: str = "completed"
    clips_only: bool = False
    faults: Sequence[Fault] = ()

    def account(self, sid: str) -> Account | None:
        """Return the account of that sid, or None."""
        return next((account for account in self.accounts if account.sid == sid), None)

    def reached(self, url: str) -> str:
        """Return the address a URL is really reached at; the same for a public name without a route."""
        parts = urlsplit(url)
        route = self.routes.get(parts.netloc.lower())
        if route is None and not (self.plain_loopback and (parts.hostname or "") in _LOOPBACK):
            return url
        return parts._replace(scheme=_PLAIN.get(parts.scheme, parts.scheme), netloc=route or parts.netloc).geturl()

    def takes_stream(self, url: str) -> bool:
        """Return whether a `<Stream url>` has a scheme that is accepted."""
        parts = urlsplit(url)
        if parts.scheme == "wss":
            return True
        return parts.scheme == "ws" and self.plain_loopback and (parts.hostname or "") in _LOOPBACK
