"""Which pages may connect."""

from __future__ import annotations

import pytest
import websocket

from core.settings import read_settings
from handlers.origins import is_allowed
from tests.fakes.browser import PLAIN_ID, Browser

BASE = {"DATABASE_URL": "sqlite:///x.db", "OPENAI_API_KEY": "sk-simulated-key-for-tests"}
SUPABASE = {"SUPABASE_URL": "https://p.example", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_1234567890123456"}


def settings(**changes: str):
    """Return settings with these variables."""
    return read_settings({**BASE, **changes})


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://voice.example", "voice.example"),
        ("https://voice.example", "voice.example:443"),
        ("http://voice.example:8080", "voice.example:8080"),
        ("HTTPS://Voice.Example", "VOICE.example"),
        ("http://[::1]:8080", "[::1]:8080"),
    ],
)
def test_page_of_the_same_origin_may_connect(origin, host):
    """A page served under the name the socket is reached by is let in, also in production."""
    production = settings(NODE_ENV="production", **SUPABASE)
    assert is_allowed(origin, host, production)


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "http://voice.example:81", "null", "", "file://", "chrome-extension://abc"),
        *("https://voice.example.evil.example", "https://evil.example/voice.example", "https://voice.example@evil"),
        *("http://localhost:3000", "http://127.0.0.1", "http://[", "https://voice.example:99999", "javascript:0"),
    ],
)
def test_other_pages_may_not(origin):
    """In production only the own origin connects; what is no web origin never does."""
    production = settings(NODE_ENV="production", **SUPABASE)
    assert not is_allowed(origin, "voice.example", production)


def test_pages_of_this_machine_may_connect_in_development():
    """A development server on another port is let in, unless a list says who may."""
    for origin in ("http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:1"):
        assert is_allowed(origin, "127.0.0.1:8080", settings())
        assert not is_allowed(origin, "127.0.0.1:8080", settings(ALLOWED_ORIGINS="https://app.example"))
    assert not is_allowed("http://localhost.evil.example", "127.0.0.1:8080", settings())


def test_list_names_origins_exactly():
    """Scheme, host and port must agree; a slash at the end and capitals do not matter; a star lets all in."""
    listed = settings(ALLOWED_ORIGINS="https://app.example, http://Dev.example:3000/")
    assert is_allowed("https://app.example", "voice.example", listed)
    assert is_allowed("http://dev.example:3000", "voice.example", listed)
    for origin in ("http://app.example", "https://app.example:8443", "https://sub.app.example"):
        assert not is_allowed(origin, "voice.example", listed)
    assert is_allowed("https://any.example", "voice.example", settings(ALLOWED_ORIGINS="*"))
    assert not is_allowed("null", "voice.example", settings(ALLOWED_ORIGINS="*"))


def test_foreign_page_gets_403_before_anything_else(gateway):
    """The handshake of a foreign page is refused with 403, of which no token or place is used up."""
    address = f"{gateway.ws_url}?token={gateway.token()}&agent_id={PLAIN_ID}"
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        websocket.create_connection(address, origin="https://evil.example", timeout=5)
    assert refusal.value.status_code == 403
    with Browser(gateway, path="") as browser:
        browser.live()
