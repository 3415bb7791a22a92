"""Who may see the operator's page: checked before anything else of a request is looked at.

    Host      a name of this machine, or that of ADMIN_PUBLIC_URL: a foreign name that was made to lead here (DNS
              rebinding) would make its page one of ours
    Origin    none, or the page's own; a request that changes something must have it
    session   a cookie, given for the key in the printed address, or for an admin's token where the page is exposed
    CSRF      a header with a value only the page knows, on every request that changes something

Source: browser reference, section 4.4.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from tornado.web import HTTPError, RequestHandler

from core.settings import Settings
from handlers.context import Context
from handlers.origins import LOCAL_HOSTS

SESSION_S = 12 * 3600
"""Longest session: a working day; where tokens are demanded it ends with the token."""

MAX_SESSIONS = 64
"""Sessions remembered; one more ends the oldest. An installation has a handful of operators."""

KEY_BYTES = 24
"""192 bits: nobody guesses it, and the address still fits a line."""

OWN_SITE: Final = frozenset({"same-origin", "none", ""})
"""`Sec-Fetch-Site` of a request by the page, by a person, and by a client that is no browser."""


@dataclass(frozen=True, slots=True)
class AdminSession:
    """An operator who was let in; `who` goes into audit lines."""

    who: str
    csrf: str
    expires_at: float


class Access:
    """The key, and the sessions of those who were let in.

    Args:
        settings: Say whether the page is exposed.
    """

    def __init__(self, settings: Settings) -> None:
        self.key = secrets.token_urlsafe(KEY_BYTES)
        self._sessions: dict[str, AdminSession] = {}
        self._public = urlsplit(settings.admin_public_url) if settings.admin_public_url else None

    @property
    def is_exposed(self) -> bool:
        """True when an admin's token is demanded and the key opens nothing."""
        return self._public is not None

    @property
    def is_https(self) -> bool:
        """True when people come over HTTPS, so that the cookie may be kept to it."""
        return self._public is not None and self._public.scheme == "https"

    def knows_host(self, host: str) -> bool:
        """Return whether the page may be asked for by this Host header."""
        name = _hostname(f"//{host}")
        return name in LOCAL_HOSTS or (self._public is not None and name == self._public.hostname)

    def is_own(self, origin: str, host: str) -> bool:
        """Return whether an Origin header is the page's own; the scheme is the proxy's business."""
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in {"http", "https"} and parts.netloc.lower() == host.lower()

    def fits_key(self, key: str) -> bool:
        """Return whether this is the key, where a key is enough."""
        return not self.is_exposed and hmac.compare_digest(key.encode(), self.key.encode())

    def let_in(self, who: str, expires_at: float | None = None) -> str:
        """Return the cookie of a new session, which ends at `expires_at` (Unix time) or after a working day."""
        latest = time.time() + SESSION_S
        cookie = secrets.token_urlsafe(KEY_BYTES)
        self._sessions[cookie] = AdminSession(who, secrets.token_urlsafe(KEY_BYTES), min(expires_at or latest, latest))
        if len(self._sessions) > MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return cookie

    def session(self, cookie: str | None) -> AdminSession | None:
        """Return the session of a cookie; None when there is none or its time is over."""
        found = self._sessions.get(cookie or "")
        if found is not None and found.expires_at <= time.time():
            del self._sessions[cookie or ""]
            return None
        return found

    def sign_out(self, cookie: str | None) -> None:
        """End a session."""
        self._sessions.pop(cookie or "", None)


class AdminDoor(RequestHandler):
    """A door of the operator's page; `session` is whose request it is."""

    is_open = False
    """True for doors that come before the sign-in."""

    session: AdminSession

    def initialize(self, context: Context, access: Access, **rest: Any) -> None:
        self.context = context
        self.access = access

    def set_default_headers(self) -> None:
        """Keep answers out of caches and other sites."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Content-Type", "application/json; charset=utf-8")

    def prepare(self) -> None:
        """Refuse who may not come.

        Raises:
            HTTPError: 403 for a foreign host or page or a missing CSRF header, 401 without a session.
        """
        request = self.request
        if not self.access.knows_host(request.host):
            raise HTTPError(403, reason="Foreign host")
        origin = request.headers.get("Origin")
        if origin is not None and not self.access.is_own(origin, request.host):
            raise HTTPError(403, reason="Foreign origin")
        changes = request.method not in {"GET", "HEAD"}
        if changes and origin is None:
            raise HTTPError(403, reason="Origin missing")
        is_visit = request.headers.get("Sec-Fetch-Mode") == "navigate" and not changes
        if request.headers.get("Sec-Fetch-Site", "") not in OWN_SITE and not (is_visit and self.is_open):
            raise HTTPError(403, reason="Foreign page")
        if self.is_open:
            return
        session = self.access.session(self.get_cookie(self.cookie_name))
        if session is None:
            raise HTTPError(401, reason="Sign in first")
        if changes and not hmac.compare_digest(request.headers.get("X-CSRF-Token", "").encode(), session.csrf.encode()):
            raise HTTPError(403, reason="CSRF token missing")
        self.session = session

    @property
    def cookie_name(self) -> str:
        """Name of the cookie: browsers share cookies between the ports of a host, so the port is in it."""
        _, _, port = self.request.host.rpartition(":")
        return f"voice_admin_{port if port.isdigit() else 'page'}"

    def give_cookie(self, value: str) -> None:
        """Set the session's cookie, out of reach of scripts and of other sites."""
        self.set_cookie(
            self.cookie_name, value, path="/admin", httponly=True, samesite="Strict", secure=self.access.is_https
        )

    def answer(self, value: Any) -> None:
        """Answer with JSON."""
        self.finish(json.dumps(value))

    def audit(self, event: str, **fields: Any) -> None:
        """Write a line that says who did what; it holds ids and no content."""
        self.context.logger.info(event, audit=True, operator=self.session.who, **fields)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an error in the shape of all JSON doors."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps({"error": {"code": _code(status_code), "message": self._reason}}))


def _code(status: int) -> str:
    names = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed"}
    return names.get(status, "unavailable" if status == 503 else "internal")


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
