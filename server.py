"""The voice server: settings, services, URL table, listen, drain.

`python server.py` starts it from the environment alone.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import httpx
from tornado.web import Application

from core.agent import Agent
from core.settings import Settings, SettingsError, read_settings
from core.twiml import AFTER_PATH, STATUS_PATH, STREAM_PATH
from handlers.admin import AdminPage
from handlers.api import AgentsDoor, NotFound, TicketsDoor
from handlers.browser import BrowserDoor, RealtimeDoor
from handlers.calls import CallsDoor, remove_expired_calls
from handlers.connections import Connections
from handlers.context import VERSION, Context
from handlers.control import control_doors
from handlers.elsewhere import end_here
from handlers.health import Health, HealthDoor, MetricsDoor, ReadyDoor
from handlers.listeners import Server, http_server
from handlers.pages import client_routes
from handlers.phone import PhoneDoor
from handlers.phone_page import PhoneLine, phone_routes
from handlers.tickets import Tickets
from handlers.upkeep import (
    SPOOL_WAIT_S,
    adopt_at_start,
    forget_keys,
    keep_adopting,
    keep_draining,
    spool_name,
    warm,
)
from handlers.webhooks import AfterWebhook, StatusWebhook, VoiceWebhook
from services import log as logs
from services.auth import Verifier, load_development_secret
from services.directory import MachineDirectory, all_machines
from services.environment import effective_environment
from services.knowledge import NO_RESULT, Knowledge, base_from_realtime_url
from services.loop_lag import LoopLag
from services.main_app import MainApp
from services.metrics import Metrics
from services.siblings import Siblings, WorkerTaken, hold, let_go, open_control_socket, run_folder
from services.spool import Spool, SpoolError
from services.ssrf import guarded_client
from services.store import Store, StoreError
from services.supabase_client import open_data_client, open_http
from services.systemd import Systemd, status_line
from services.telephony import Accounts, Telephony
from services.toolbox import KnowledgeSearch, Toolbox
from services.traces import TracesUnavailable, open_traces
from services.upstream import Upstream
from services.vault import EnvironmentKey, KeySource, KeyUnavailable, ReadSecret
from services.workers import DRAIN, FORCE, FORGET, LEAVE, ORPHANED, Seat, listen

if TYPE_CHECKING:
    from postgrest import AsyncPostgrestClient

__all__ = ["Server", "assemble", "doors", "health_doors", "knowledge_search", "main", "run", "start"]

ORPHAN_DRAIN_S = 3.0
"""How long sessions go on in a worker whose parent was killed: as long as it lives no new server can take its name."""

GC_OBJECTS = 20_000
"""New objects between two rounds of the garbage collector: 5 MB at most, against 700 by default."""


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


async def open_store(settings: Settings, data: AsyncPostgrestClient | None) -> Store:
    """Return the store the settings name, its tables made or brought up to date in development."""
    url = settings.database_url
    if url is None:
        assert data is not None  # read_settings asks for one of the two
        from services.supabase_store import SupabaseStore

        return SupabaseStore(data)
    from services.sql_store import SqlStore, migrate  # 15 MB, for PostgreSQL 27: not for Supabase

    store = SqlStore.open(url)
    if url.startswith("sqlite"):
        await store.create_schema()
    elif not settings.is_production:
        await migrate(url)
    return store


def key_sources(settings: Settings, data: AsyncPostgrestClient | None) -> tuple[KeySource, ReadSecret | None]:
    """Return where the OpenAI key comes from, and what reads other secrets by their ids when there is a Vault."""
    if data is None:
        return EnvironmentKey(settings.openai_api_key or ""), None
    from services.vault.supabase import VaultKey, VaultSecrets

    return VaultKey(data), VaultSecrets(data).secret


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


async def assemble(settings: Settings, worker: str, *, simulated: bool = False) -> tuple[Context, list[Any]]:
    """Return the services of the worker of this name, and what closes them."""
    traces = open_traces(settings.otel_endpoint, VERSION)
    http = open_http()
    data = None
    if settings.supabase_url:
        data = open_data_client(settings.supabase_url, settings.supabase_service_key or "", http)
    store = await open_store(settings, data)
    keys, secret_of = key_sources(settings, data)
    secret = None if settings.is_production else load_development_secret(settings.state_dir)
    verifier = Verifier.from_settings(settings, http if settings.supabase_url else None, secret)
    spool_file = Path(settings.state_dir) / spool_name(worker)
    spool = await Spool.open(spool_file, report=_report, wait_s=SPOOL_WAIT_S)
    await adopt_at_start(spool, settings.state_dir, worker, settings.workers)
    siblings = Siblings(run_folder(settings.state_dir), worker)
    limits = settings.max_connections, settings.max_sessions_per_user
    directory = MachineDirectory(siblings.run_dir, worker, living=siblings.names, limits=limits, report=_report)
    metrics = Metrics(VERSION)
    lag = LoopLag(report=metrics.loop_late)
    lag.start()
    tools_http = guarded_client()
    stats = spool.stats
    metrics.watch_spool(lambda: stats().pending, lambda: stats().oldest_s, dead=lambda: stats().dead)
    metrics.watch_loop(lag.p99_ms)
    metrics.watch_log(lambda: logs.log.lost_lines)
    machines = all_machines(settings.redis_url, directory, limits=limits, report=_report)
    connections = Connections(*limits, machines or directory)
    metrics.watch_connections(limits[0], lambda: connections.active, lambda: connections.is_draining)
    context = Context(
        settings=settings,
        connections=connections,
        verifier=verifier,
        keys=keys,
        store=store,
        spool=spool,
        upstream=Upstream(settings.openai_realtime_url),
        toolbox=Toolbox(tools_http, knowledge=knowledge_search(settings, http, keys)),
        metrics=metrics,
        lag=lag,
        tickets=Tickets(directory=machines or directory),
        accounts=Accounts(settings.twilio_account_sid, settings.twilio_auth_token, secret=secret_of),
        telephony=Telephony(http, base_url=settings.twilio_api_url, on_failure=_call_not_changed),
        main_app=main_app(settings, http),
        worker=worker,
        siblings=siblings,
        machines=machines,
        simulated=simulated,
        traces=traces,
    )
    metrics.watch_links(lambda: context.upstream.resumed)

    async def leave_directory() -> None:
        if machines is not None:
            await machines.close()
        directory.close()

    if machines is not None:
        await machines.start(partial(end_here, context))
    flush_traces = partial(asyncio.to_thread, traces.close)
    return context, [tools_http.aclose, http.aclose, store.close, lag.stop, leave_directory, flush_traces]


def main_app(settings: Settings, http: httpx.AsyncClient) -> MainApp | None:
    """Return the app that knows calls, when there is one."""
    if settings.main_app_url is None or settings.internal_api_key is None:
        return None
    return MainApp(http, settings.main_app_url, settings.internal_api_key)


def _call_not_changed(cause: str) -> None:
    logs.log.warning("call not changed", cause=cause)


def _report(event: str, fields: Mapping[str, Any]) -> None:
    logs.log.warning(event, **fields)


async def start(
    settings: Settings, *, simulated: bool = False, phone: PhoneLine | None = None, seat: Seat | None = None
) -> Server:
    """Return a server that listens on the settings' ports; a port of 0 takes a free one.

    Args:
        settings: Read once, not changed.
        simulated: The Realtime service is the simulator; the talk page says so.
        phone: Configuration of the telephone in the page; only the demo has one.
        seat: This process's place among several; default: it is the only one.

    Raises:
        OSError: If a port is taken, or STATE_DIR cannot be written.
        WorkerTaken: If a server with the same port and STATE_DIR runs.
    """
    seat = seat or Seat.alone(settings.port, settings.health_port, settings.host)
    run_dir = run_folder(settings.state_dir)
    name_lock = hold(run_dir, seat.worker)
    try:
        context, closing = await assemble(settings, seat.worker, simulated=simulated)
        await warm(context)
        control = control_socket(run_dir, seat.worker)
    except BaseException:
        let_go(run_dir, seat.worker, name_lock)
        seat.close()
        raise
    health = Health(context)
    servers = []
    for application, sockets in (
        (control_doors(context), control),
        (doors(context, health, phone), seat.doors),
        (health_doors(context, health), seat.health),
    ):
        listen(sockets)
        servers.append(http_server(application))
        servers[-1].add_sockets(sockets)
    keep_draining(context)
    context.start(remove_expired_calls(context), "remove-expired-calls")
    context.start(keep_adopting(context), "adopt-spools")
    port, health_port = seat.port, seat.health_port
    context.logger.info("listening", host=settings.host, port=port, health_port=health_port, version=VERSION)

    async def leave() -> None:
        let_go(run_dir, seat.worker, name_lock)

    admin = AdminPage(context, http_server)
    admin.start()
    return Server(context, port, health_port, seat, servers, [admin.stop, *closing, leave], admin)


def control_socket(run_dir: Path, worker: str) -> list[socket.socket]:
    """Return the worker's control socket; none, which is logged, on a disk that takes no sockets."""
    try:
        return [open_control_socket(run_dir, worker)]
    except OSError as error:
        logs.log.warning("no control socket", worker=worker, cause=type(error).__name__)
        return []


async def serve(settings: Settings, seat: Seat | None = None) -> None:
    """Run until SIGTERM or SIGINT, then drain; a second signal forces. SIGHUP: `forget_keys`.

    A worker takes its orders from its parent; a signal sent to it alone has it drain, however often, and leave the port
    to the others.
    """
    server = await start(settings, seat=seat)
    settle_memory()
    connections, systemd = server.context.connections, Systemd.from_environment(os.environ, os.getpid())
    asked, force = asyncio.Event(), asyncio.Event()

    def status() -> str:
        counts = connections.count("browser"), connections.count("phone")
        return status_line(*counts, settings.max_connections, is_draining=connections.is_draining)

    def on_signal() -> None:
        (force if asked.is_set() and seat is None else asked).set()
        server.seat.ask_to_leave()

    forget = partial(forget_keys, server.context)
    on_signals(on_signal, partial(systemd.reload, forget))

    def on_orphaned() -> None:
        asked.set()
        asyncio.get_running_loop().call_later(ORPHAN_DRAIN_S, force.set)

    orders: dict[str, Callable[[], None]] = {
        DRAIN: asked.set, FORCE: force.set, FORGET: forget, LEAVE: server.leave_port, ORPHANED: on_orphaned
    }  # fmt: skip
    counts = {"browser": partial(connections.count, "browser"), "phone": partial(connections.count, "phone")}
    server.seat.report_to_parent(lambda: {name: count() for name, count in counts.items()}, orders)
    systemd.start(status)
    await asked.wait()
    systemd.stopping(f"draining {connections.active}")
    await server.stop(drain_s=settings.drain_timeout_s, force=force)


def on_signals(stop: Callable[[], None], reload: Callable[[], None]) -> None:
    """Have SIGTERM and SIGINT call one, SIGHUP the other."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


def settle_memory() -> None:
    """Take what the start has made out of the garbage collector's rounds, and have them come more rarely.

    What talks leave behind is freed by counting references; the rounds look for cycles, which are few.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 20, 20)


def run(main: Any) -> Any:
    """Run a coroutine on the fastest event loop there is."""
    try:
        import uvloop
    except ImportError:  # no wheel for this platform
        return asyncio.run(main)
    return uvloop.run(main)


def become_parent() -> NoReturn:
    """Turn this process into the parent of several workers, cli/supervise.py: it needs nothing of this file."""
    folder = str(Path(__file__).resolve().parent)
    paths = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-P", "-m", "cli.supervise"]
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": paths})  # noqa: S606 - fixed words, no shell


def main() -> int:
    """Start from the environment; returns the exit status."""
    seat = Seat.inherited(os.environ)
    try:
        settings = read_settings(effective_environment(Path(__file__).with_name(".env"), os.environ))
    except SettingsError as error:
        print("The server cannot start. Mend these settings:", file=sys.stderr)  # noqa: T201 - there is no log yet
        for problem in error.problems:
            print(f"  - {problem}", file=sys.stderr)  # noqa: T201
        return 78  # EX_CONFIG of sysexits.h: systemd must not restart into the same mistake
    if settings.workers > 1 and seat is None:
        become_parent()
    logs.configure_by(settings)
    try:
        run(serve(settings, seat))
    except TracesUnavailable as error:
        print(f"The server cannot start: {error}", file=sys.stderr)  # noqa: T201 - a person started it
        return 78
    except (OSError, StoreError, SpoolError, WorkerTaken) as error:
        logs.log.error("cannot start", cause=type(error).__name__)
        print(f"The server cannot start: {error}", file=sys.stderr)  # noqa: T201 - a person started it
        return 1
    finally:
        logs.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
