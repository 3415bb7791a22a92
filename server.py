"""The voice server: settings, services, URL table, listen, drain.

`python server.py` starts it from the environment alone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from dotenv import dotenv_values
from postgrest import AsyncPostgrestClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from core.agent import Agent
from core.settings import Settings, SettingsError, read_settings
from core.twiml import AFTER_PATH, STATUS_PATH, STREAM_PATH
from handlers.api import AgentsDoor, NotFound, TicketsDoor
from handlers.browser import BrowserDoor, RealtimeDoor
from handlers.calls import CallsDoor, remove_expired_calls
from handlers.connections import Connections
from handlers.context import VERSION, Context
from handlers.health import Health, HealthDoor, MetricsDoor, ReadyDoor
from handlers.pages import client_routes
from handlers.phone import PhoneDoor
from handlers.phone_page import PhoneLine, phone_routes
from handlers.tickets import Tickets
from handlers.webhooks import AfterWebhook, StatusWebhook, VoiceWebhook
from services import log as logs
from services.auth import Verifier, load_development_secret
from services.knowledge import NO_RESULT, Knowledge, base_from_realtime_url
from services.loop_lag import LoopLag
from services.main_app import MainApp
from services.metrics import Metrics
from services.spool import Spool, SpoolError
from services.sql_store import MigrationFailed, SqlStore, migrate
from services.ssrf import guarded_client
from services.store import Store, StoreError
from services.supabase_client import open_data_client, open_http
from services.supabase_store import SupabaseStore
from services.telephony import Accounts, Telephony
from services.toolbox import KnowledgeSearch, Toolbox
from services.upstream import Upstream
from services.vault import EnvironmentKey, KeySource, KeyUnavailable, VaultKey, VaultSecrets

MAX_HEADER_BYTES = 16_384
"""Longest request head: a token of 8 KiB in the address and as much for everything else."""

IDLE_CONNECTION_S = 10.0
"""A handshake fed drop by drop is cut after this (operations reference, section 1.1)."""

CLOSE_S = 5.0
"""How long a stop waits for HTTP connections that are kept alive; closing one takes no round trip."""

DRAIN_AGAIN_S = 1.0
"""Pause before the drainer is begun again after a bug: long enough not to fill the log, short for a transcript."""

SPOOL_DRAIN_S = 10.0
"""How long a stop waits for transcripts to reach the database; the rest stays on disk (operations reference,
section 5)."""


def doors(context: Context, health: Health, phone: PhoneLine | None = None) -> Application:
    """Return the URL table of PORT."""
    own = {"context": context}
    return Application(
        [
            (r"/", BrowserDoor, own),
            (r"/v1/realtime", RealtimeDoor, own),
            (r"/api/tickets", TicketsDoor, own),
            (r"/api/agents", AgentsDoor, own),
            (r"/api/calls/([^/]+)", CallsDoor, own),
            (STREAM_PATH, PhoneDoor, own),
            (r"/api/twilio/voice", VoiceWebhook, own),
            (STATUS_PATH, StatusWebhook, own),
            (AFTER_PATH, AfterWebhook, own),
            *client_routes(),
            *(phone_routes(phone) if phone is not None else ()),
            (r"/health", HealthDoor, {"health": health}),
            (r"/ready", ReadyDoor, {"health": health}),
        ],
        default_handler_class=NotFound,
        log_function=lambda handler: None,
    )


def health_doors(context: Context, health: Health) -> Application:
    """Return the URL table of HEALTH_PORT."""
    return Application(
        [
            (r"/health", HealthDoor, {"health": health}),
            (r"/ready", ReadyDoor, {"health": health}),
            (r"/metrics", MetricsDoor, {"context": context}),
        ],
        default_handler_class=NotFound,
        log_function=lambda handler: None,
    )


@dataclass(slots=True)
class Server:
    """A server that listens; stop it with `stop`."""

    context: Context
    port: int
    health_port: int
    _servers: list[HTTPServer]
    _closing: list[Any]

    async def stop(self, *, drain_s: float = 0.0, force: asyncio.Event | None = None) -> None:
        """Take no new sessions, let the live ones end, write the transcripts, close everything."""
        connections, log = self.context.connections, self.context.logger
        log.info("draining", sessions=connections.active, deadline_s=drain_s)
        cut = await connections.drain(drain_s, force or asyncio.Event())
        for server in self._servers:
            server.stop()
        try:
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*(server.close_all_connections() for server in self._servers))
        except TimeoutError:
            log.warning("requests cut off")
        await self.context.spool.close(SPOOL_DRAIN_S)
        for close in self._closing:
            await close()
        log.info("stopped", sessions_cut=cut)


async def open_store(settings: Settings, data: AsyncPostgrestClient | None) -> Store:
    """Return the store the settings name, its tables made or brought up to date in development."""
    url = settings.database_url
    if url is None:
        assert data is not None  # read_settings asks for one of the two
        return SupabaseStore(data)
    store = SqlStore.open(url)
    if url.startswith("sqlite"):
        await store.create_schema()
    elif not settings.is_production:
        await migrate(url)
    return store


def knowledge_search(settings: Settings, http: httpx.AsyncClient, keys: KeySource) -> KnowledgeSearch:
    """Return the search of an agent's vector stores, with the agent's own API key."""
    knowledge = Knowledge(
        http,
        base_url=base_from_realtime_url(settings.openai_realtime_url),
        on_failure=lambda cause: logs.log.warning("knowledge search failed", cause=cause),
    )

    async def search(agent: Agent, query: str) -> str:
        try:
            key = await keys.key(agent.api_key_secret_id)
        except KeyUnavailable as error:
            logs.log.warning("knowledge search failed", cause=error.step)
            return NO_RESULT
        return await knowledge.search(key, agent.knowledge, query)

    return search


async def assemble(settings: Settings, *, simulated: bool = False) -> tuple[Context, list[Any]]:
    """Return the services of this process, and what closes them."""
    http = open_http()
    data = None
    if settings.supabase_url:
        data = open_data_client(settings.supabase_url, settings.supabase_service_key or "", http)
    store = await open_store(settings, data)
    keys: KeySource = VaultKey(data) if data is not None else EnvironmentKey(settings.openai_api_key or "")
    secrets = VaultSecrets(data) if data is not None else None
    secret = None if settings.is_production else load_development_secret(settings.state_dir)
    verifier = Verifier.from_settings(settings, http if settings.supabase_url else None, secret)
    spool = await Spool.open(Path(settings.state_dir) / f"spool-{settings.port}.spool", report=_spool_report)
    await spool.adopt(settings.state_dir)
    metrics, lag = Metrics(), LoopLag()
    lag.start()
    tools_http = guarded_client()
    metrics.watch_spool(lambda: spool.stats().pending, lambda: spool.stats().oldest_s)
    metrics.watch_loop(lag.p99_ms)
    context = Context(
        settings=settings,
        connections=Connections(settings.max_connections, settings.max_sessions_per_user),
        verifier=verifier,
        keys=keys,
        store=store,
        spool=spool,
        upstream=Upstream(settings.openai_realtime_url),
        toolbox=Toolbox(tools_http, knowledge=knowledge_search(settings, http, keys)),
        metrics=metrics,
        lag=lag,
        tickets=Tickets(),
        accounts=Accounts(
            settings.twilio_account_sid, settings.twilio_auth_token, secret=secrets.secret if secrets else None
        ),
        telephony=Telephony(http, base_url=settings.twilio_api_url, on_failure=_call_not_changed),
        main_app=main_app(settings, http),
        simulated=simulated,
    )
    return context, [tools_http.aclose, http.aclose, store.close, lag.stop]


def main_app(settings: Settings, http: httpx.AsyncClient) -> MainApp | None:
    """Return the app that knows calls, when there is one."""
    if settings.main_app_url is None or settings.internal_api_key is None:
        return None
    return MainApp(http, settings.main_app_url, settings.internal_api_key)


def _call_not_changed(cause: str) -> None:
    logs.log.warning("call not changed", cause=cause)


def _spool_report(event: str, fields: Mapping[str, Any]) -> None:
    logs.log.warning(event, **fields)


def keep_draining(context: Context) -> None:
    """Bring transcripts to the store until the spool is closed; begin again after a bug has stopped it."""

    def again() -> None:
        asyncio.get_running_loop().call_later(DRAIN_AGAIN_S, keep_draining, context)

    context.start(context.spool.run(context.store), "spool-drainer", failed=again)


async def warm(context: Context) -> None:
    """Fetch the signing keys and the API key before the first caller needs them; what is missing is logged."""
    await context.verifier.warm()
    try:
        await context.keys.key()
    except KeyUnavailable as error:
        context.logger.error("no API key", step=error.step, mend=error.how_to_mend)


def forget_keys(context: Context) -> None:
    """Drop the API keys and the published signing keys from memory, so that a change counts with the next session."""
    context.keys.forget()
    context.verifier.purge()
    context.logger.info("keys forgotten")


async def start(settings: Settings, *, simulated: bool = False, phone: PhoneLine | None = None) -> Server:
    """Return a server that listens on the settings' ports; a port of 0 takes a free one.

    Args:
        settings: Read once, not changed.
        simulated: The Realtime service is the simulator; the talk page says so.
        phone: Configuration of the telephone in the page; only the demo has one.
    """
    context, closing = await assemble(settings, simulated=simulated)
    await warm(context)
    health = Health(context)
    servers, ports = [], []
    for application, port in (
        (doors(context, health, phone), settings.port),
        (health_doors(context, health), settings.health_port),
    ):
        server = HTTPServer(
            application,
            xheaders=False,
            idle_connection_timeout=IDLE_CONNECTION_S,
            max_header_size=MAX_HEADER_BYTES,
            max_body_size=65_536,  # the JSON doors take small bodies only
        )
        sockets = bind_sockets(port, settings.host, family=socket.AF_UNSPEC, backlog=1024)
        server.add_sockets(sockets)
        servers.append(server)
        ports.append(sockets[0].getsockname()[1])
    keep_draining(context)
    context.start(remove_expired_calls(context), "remove-expired-calls")
    context.logger.info("listening", host=settings.host, port=ports[0], health_port=ports[1], version=VERSION)
    return Server(context, ports[0], ports[1], servers, closing)


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then drain; a second signal forces. SIGHUP: `forget_keys`."""
    server = await start(settings)
    asked, force = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (force if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, forget_keys, server.context)
    await asked.wait()
    await server.stop(drain_s=settings.drain_timeout_s, force=force)


def run(main: Any) -> Any:
    """Run a coroutine on the fastest event loop there is."""
    try:
        import uvloop
    except ImportError:  # no wheel for this platform
        return asyncio.run(main)
    return uvloop.run(main)


def environment() -> dict[str, str]:
    """Return the process's environment over `.env`, and systemd's credentials over both."""
    found: dict[str, str] = {k: v for k, v in dotenv_values(Path(__file__).with_name(".env")).items() if v is not None}
    found |= os.environ
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials:
        for file in Path(credentials).iterdir():
            found[file.name.upper().replace("-", "_")] = file.read_text().strip()
    return found


def main() -> int:
    """Start from the environment; returns the exit status."""
    try:
        settings = read_settings(environment())
    except SettingsError as error:
        print("The server cannot start. Mend these settings:", file=sys.stderr)  # noqa: T201 - there is no log yet
        for problem in error.problems:
            print(f"  - {problem}", file=sys.stderr)  # noqa: T201
        return 78  # EX_CONFIG of sysexits.h: systemd must not restart into the same mistake
    logs.configure(
        log_dir=settings.log_dir,
        level=settings.log_level,
        environment=settings.environment,
        workers=settings.workers,
        console=not settings.is_production,
    )
    try:
        run(serve(settings))
    except (OSError, MigrationFailed, StoreError, SpoolError) as error:
        logs.log.error("cannot start", cause=type(error).__name__)
        print(f"The server cannot start: {error}", file=sys.stderr)  # noqa: T201 - a person started it
        return 1
    finally:
        logs.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
