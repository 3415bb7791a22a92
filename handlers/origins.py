"""Which web pages may connect (cross-site WebSocket hijacking).

A request without `Origin` comes from no browser page and passes: the token is its gate. With one, it must be the same
origin, on the list, or, in development, a page of this machine. `*` on the list lets every page in.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from core.settings import Settings

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
DEFAULT_PORTS = {"http": 80, "https": 443}


def is_allowed(origin: str, host: str, settings: Settings) -> bool:
    """True when a page of `origin` may connect to this server, reached as `host`.

    Args:
        origin: The request's Origin header.
        host: The request's Host header.
        settings: Holds ALLOWED_ORIGINS and the environment.
    """
    try:
        page = urlsplit(origin.strip().lower())
        page_port = page.port or DEFAULT_PORTS.get(page.scheme)
    except ValueError:
        return False
    if page.scheme not in DEFAULT_PORTS or not page.hostname:
        return False  # `null`, file:// and extensions
    if any(entry == "*" or entry.lower() == f"{page.scheme}://{page.netloc}" for entry in settings.allowed_origins):
        return True
    if _is_same(page.hostname, page_port, host):
        return True
    return not settings.is_production and not settings.allowed_origins and page.hostname in LOCAL_HOSTS


def _is_same(hostname: str, port: int | None, host: str) -> bool:
    """True when the Host header names the page's own host; its port may be left out when it is the scheme's own."""
    try:
        served = urlsplit(f"//{host.strip().lower()}")
        return served.hostname == hostname and served.port in {port, None if port in {80, 443} else port}
    except ValueError:
        return False
