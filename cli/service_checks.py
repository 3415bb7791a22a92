"""What `./voice doctor` asks the services this server uses: one function a question.

A check raises nothing it expects; it says what is wrong and how to mend it. No answer holds a secret.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx
import websocket

from cli.findings import Finding, ok, problem, skipped
from core.calls import is_account_sid
from core.realtime import read_upstream
from core.settings import Settings
from core.twiml import http_base
from services.auth import Verifier
from services.sql_store import SqlStore, pending
from services.store import Store, StoreError
from services.supabase_client import open_data_client, open_http
from services.supabase_store import SupabaseStore
from services.vault import EnvironmentKey, KeySource, KeyUnavailable, looks_like_a_key
from services.vault.supabase import VaultKey

HANDSHAKE_S = 8.0
"""As long as the server itself waits."""

CLOCK_S = 10.0
"""Greatest difference to another clock that is no problem: the Date header counts whole seconds, and tokens that are
some seconds from the future or the past are rare."""

NOBODY = "00000000-0000-4000-8000-000000000000"
"""A user without rows: asking for this one's agents only tells whether the tables are there."""


async def database(settings: Settings) -> Finding:
    """Is the database there, and does it have the tables of this version?"""
    file = _missing_file(settings.database_url or "")
    if file is not None:
        return ok("database", f"{file} is not there yet; the first start of the server makes it")
    async with open_http() as http:
        store: Store
        if settings.database_url:
            store, kind = SqlStore.open(settings.database_url), urlsplit(settings.database_url).scheme
        else:
            client = open_data_client(settings.supabase_url or "", settings.supabase_service_key or "", http)
            store, kind = SupabaseStore(client), "Supabase"
        try:
            missing = await pending(settings.database_url or "") if kind.startswith("postgres") else []
            if missing:
                return problem("database", f"reachable, but {len(missing)} migrations are missing", "./voice migrate")
            began = time.monotonic()
            await store.ping()
            await store.agents(NOBODY)
        except StoreError as error:
            return problem("database", f"{kind}: {error}", _mend_database(kind))
        finally:
            await store.close()
    return ok("database", f"{kind} answers in {(time.monotonic() - began) * 1000:.0f} ms and has the tables")


def _missing_file(database_url: str) -> Path | None:
    """Return the path of an SQLite file that does not exist; asking the database would make an empty one."""
    parts = urlsplit(database_url)
    file = Path(parts.path[1:])  # sqlite:///relative, sqlite:////absolute
    return file if parts.scheme == "sqlite" and not file.exists() else None


def _mend_database(kind: str) -> str:
    if kind.startswith("sqlite"):
        return "The file and its tables are made by the server's first start: ./voice serve"
    if kind == "Supabase":
        return "Check SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY, and apply supabase/migrations: supabase db push"
    return "Check DATABASE_URL and that PostgreSQL runs, then: ./voice migrate"


async def redis(settings: Settings) -> Finding:
    """Is the Redis there that several machines share, and does it take what the server does there?"""
    if settings.redis_url is None:
        return ok("redis", "not set: this machine's limits are its own")
    from services.directory.redis_client import try_redis

    where = urlsplit(settings.redis_url).hostname
    began = time.monotonic()
    cause = await try_redis(settings.redis_url)
    if cause is not None:
        return problem("redis", f"{where}: {cause}", "Check REDIS_URL with its password, for rediss:// whether the "
                                "certificate is trusted (?ssl_ca_certs=FILE), the firewall, and that Redis 7 or later "
                                "runs: redis-cli -u \"$REDIS_URL\" ping")  # fmt: skip
    return ok("redis", f"{where} answers in {(time.monotonic() - began) * 1000:.0f} ms")


async def key(settings: Settings) -> Finding:
    """Can the key for the voice service be had?"""
    found = await _key(settings)
    source = "the Vault" if settings.supabase_url else "OPENAI_API_KEY"
    return found if isinstance(found, Finding) else ok("key", f"read from {source}")


async def _key(settings: Settings) -> str | Finding:
    async with open_http() as http:
        source: KeySource = EnvironmentKey(settings.openai_api_key or "")
        if settings.supabase_url:
            source = VaultKey(open_data_client(settings.supabase_url, settings.supabase_service_key or "", http))
        try:
            value = await source.key()
        except KeyUnavailable as error:
            return problem("key", f"no key: {error.step.replace('_', ' ')}", error.how_to_mend)
    if not looks_like_a_key(value):
        return problem("key", "what is set does not look like an API key", "Copy the key again to OPENAI_API_KEY.")
    return value


async def tokens(settings: Settings) -> Finding:
    """Can tokens of users be checked?"""
    async with open_http() as http:
        verifier = Verifier.from_settings(settings, http if settings.supabase_jwks_url else None)
        await verifier.warm()
    if verifier.status() == "down":
        mend = "Check SUPABASE_URL, SUPABASE_JWKS_URL and the network; with HS256 set SUPABASE_JWT_SECRET."
        if settings.supabase_jwt_secret:
            return ok("token keys", "the published keys cannot be fetched; HS256 tokens are checked with the secret")
        return problem("token keys", "the published signing keys cannot be fetched", mend)
    if verifier.published_keys:
        return ok("token keys", f"{verifier.published_keys} published signing keys were fetched")
    if settings.supabase_url and not settings.supabase_jwt_secret:
        return ok("token keys", "the project publishes no keys (it signs with HS256): Auth is asked about every token; "
                                "SUPABASE_JWT_SECRET, or signing keys in the dashboard, would spare that")  # fmt: skip
    if settings.supabase_jwt_secret:
        return ok("token keys", "HS256 with SUPABASE_JWT_SECRET")
    return ok("token keys", "development tokens only, made by ./voice token")


async def voice_service(settings: Settings) -> Finding:
    """Does the Realtime service open a session with our key and model?"""
    value = await _key(settings)
    if isinstance(value, Finding):
        return skipped("voice service", "not tried: there is no key")
    return await asyncio.to_thread(_handshake, settings, value)


def _handshake(settings: Settings, value: str) -> Finding:
    parts = urlsplit(settings.openai_realtime_url)
    query = "&".join(filter(None, (parts.query, urlencode({"model": settings.openai_model}))))
    began = time.monotonic()
    try:
        link = websocket.create_connection(
            urlunsplit(parts._replace(query=query)), timeout=HANDSHAKE_S, header=[f"Authorization: Bearer {value}"],
            suppress_origin=True,
        )  # fmt: skip
        try:
            event = read_upstream(_bytes(link.recv())) or {}
        finally:
            link.close(timeout=1)
    except websocket.WebSocketBadStatusException as error:
        return _refused(parts.netloc, error.status_code)
    except (websocket.WebSocketException, ssl.SSLError, OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        return problem("voice service", f"{parts.hostname} cannot be reached ({why})",
                       "Check OPENAI_REALTIME_URL, the firewall and the network.")  # fmt: skip
    if event.get("type") != "session.created":
        code = (event.get("error") or {}).get("code")
        return problem("voice service", f"{parts.hostname} refuses a session of {settings.openai_model} ({code})",
                       "Check the key, its limits and OPENAI_MODEL.")  # fmt: skip
    took = (time.monotonic() - began) * 1000
    return ok("voice service", f"{parts.hostname} opened a session of {settings.openai_model} in {took:.0f} ms")


def _bytes(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message


def _refused(host: str, status: int) -> Finding:
    mend = {
        401: "The key is not accepted: replace it in the Vault or in OPENAI_API_KEY.",
        403: "The key may not use this service, or the country is not served.",
        404: "OPENAI_REALTIME_URL has the wrong path: OpenAI's ends with /v1/realtime.",
        429: "The account is at a limit, or out of credit: look at its usage page.",
    }.get(status, "Look at the service's status page.")
    return problem("voice service", f"{host} answered {status} to the handshake", mend)


async def phone(settings: Settings) -> Finding:
    """Would Twilio's calls be answered?"""
    given = [settings.public_url, settings.twilio_account_sid, settings.twilio_auth_token]
    if not any(given):
        return ok("phone", "not set up; docs/phone.md says how")
    if settings.public_url is None:
        return problem("phone", "PUBLIC_URL is missing", "Set it to the address Twilio calls, such as https://HOST.")
    parts = urlsplit(settings.public_url)
    if parts.scheme in {"http", "ws"} and parts.hostname not in {"127.0.0.1", "localhost"}:
        return problem("phone", "PUBLIC_URL is not encrypted", "Twilio streams to wss only: set https://HOST.")
    if parts.path.strip("/") or parts.query:
        return problem("phone", "PUBLIC_URL has a path", "Set it to https://HOST alone; the doors have their own.")
    if settings.twilio_account_sid is None and settings.twilio_auth_token is None:
        return ok("phone", "not set up, PUBLIC_URL is for browsers; docs/phone.md says how")
    if settings.twilio_auth_token is None:
        mend = "Copy the account's primary auth token from Twilio's console to TWILIO_AUTH_TOKEN."
        return problem("phone", "TWILIO_AUTH_TOKEN is missing: no signature can be checked", mend)
    if not is_account_sid(settings.twilio_account_sid or ""):
        mend = "Copy the account SID from Twilio's console: AC and 32 hexadecimal digits."
        return problem("phone", "TWILIO_ACCOUNT_SID is missing or has another shape", mend)
    return ok("phone", f"webhook: {http_base(settings.public_url)}/api/twilio/voice")


async def clock(settings: Settings) -> Finding:
    """Does this machine's clock agree with another one? Tokens are checked by it."""
    parts = urlsplit(settings.supabase_url or settings.openai_realtime_url)
    address = f"{parts.scheme.replace('ws', 'http')}://{parts.netloc}/"
    try:
        async with open_http() as http:
            answer = await http.head(address)
        theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (httpx.HTTPError, KeyError, ValueError):
        return skipped("clock", f"{parts.hostname} did not tell the time")
    apart = time.time() - theirs
    if abs(apart) > CLOCK_S:
        word = "ahead" if apart > 0 else "behind"
        return problem("clock", f"{abs(apart):.0f} s {word} of {parts.hostname}", "timedatectl set-ntp true")
    return ok("clock", f"within {CLOCK_S:g} s of {parts.hostname}")


SERVICE_CHECKS: tuple[tuple[str, Callable[[Settings], Awaitable[Finding]]], ...] = (
    ("database", database),
    ("redis", redis),
    ("key", key),
    ("token keys", tokens),
    ("voice service", voice_service),
    ("phone", phone),
    ("clock", clock),
)
"""All of them, in the order they are shown."""
