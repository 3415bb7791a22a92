"""`/health`, `/ready` and `/metrics`: one answer for the server, whichever of its workers is asked.

Sessions are counted over all that share the STATE_DIR, as MAX_CONNECTIONS is. Checks and metrics are those of the
workers on one port: an instance answers for itself. `/ready` is about the process that is asked.
"""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

from tornado.web import RequestHandler

from core.workers import merged_checks, merged_metrics
from handlers.context import VERSION, Context
from services.store import StoreError
from services.vault import KeyUnavailable

CHECK_S = 2.0
"""Longest a check may take: monitors usually wait 5 s for the whole answer."""

CACHE_S = 1.0
"""Answers are kept this long, so that a stranger cannot make us hammer the database."""

ASK_S = 1.5
"""Longest wait for the other workers' part; they answer from memory."""

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format as every version of it reads it. Source: Prometheus, "Exposition formats"."""

STALE_TRANSCRIPTS_S = 60.0
"""Source: operations reference, section 5, rule 9."""

FAILING_LINKS = 3
"""Links that failed in a row before the voice service counts as down: one may be chance."""


def health_part(context: Context) -> dict[str, Any]:
    """Return what every worker answers for itself: its checks, and its uptime in seconds; all from memory."""
    return {
        "openai": _openai(context),
        "transcripts": _transcripts(context),
        "event_loop": {"lag_p99_ms": round(context.lag.p99_ms(), 1)},
        "uptime": time.monotonic() - context.began_at,
    }


def _openai(context: Context) -> dict[str, Any]:
    tried = context.last_connect_ms is not None or context.upstream_failures > 0
    status = "down" if context.upstream_failures >= FAILING_LINKS else "up" if tried else "unknown"
    return {"status": status, "last_connect_ms": context.last_connect_ms}


def _transcripts(context: Context) -> dict[str, Any]:
    stats = context.spool.stats()
    late = stats.oldest_s > STALE_TRANSCRIPTS_S or not context.spool.accepting_sessions
    return {"status": "down" if late else "up", "pending": stats.pending, "oldest_s": round(stats.oldest_s)}


class Health:
    """The state of the server, checked at most once a second."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._checked_at = float("-inf")
        self._report: dict[str, Any] = {}
        self._lock = asyncio.Lock()

    async def report(self) -> dict[str, Any]:
        """Return the health report (contract, section 6); no secrets, no user data, no addresses."""
        async with self._lock:
            if time.monotonic() - self._checked_at > CACHE_S:
                self._report = await self._check()
                self._checked_at = time.monotonic()
        return self._report

    async def is_ready(self) -> bool:
        """True when a new session would find room, a database and a key."""
        connections = self._context.connections
        if connections.is_draining or not await connections.has_room():
            return False
        report = await self.report()
        return report["checks"]["database"]["status"] == "up" and await self._has_key()

    async def _check(self) -> dict[str, Any]:
        context = self._context
        database, parts = await asyncio.gather(self._database(), self._parts())
        checks = {"database": database, "auth": {"status": context.verifier.status()}, **merged_checks(parts)}
        for name, check in checks.items():
            context.metrics.checked(name, str(check.get("status")))
        totals = await context.connections.totals()
        failing = [name for name, check in checks.items() if check.get("status") == "down"]
        is_whole = len(parts) >= context.settings.workers
        status = "healthy" if is_whole and not failing else "degraded"
        status = "draining" if context.connections.is_draining else status
        if "database" in failing and "auth" in failing:
            status = "unhealthy" if status == "degraded" else status
        return {
            "status": status,
            "activeConnections": totals.active,
            "maxConnections": context.settings.max_connections,
            "uptime": int(max(part["uptime"] for part in parts)),
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "version": VERSION,
            "workers": len(parts),
            "browser": totals.talking.get("browser", 0),
            "phone": totals.talking.get("phone", 0),
            "checks": checks,
        }

    async def _parts(self) -> list[dict[str, Any]]:
        """Return the parts of all workers of this server that answer, ours first."""
        context, own = self._context, health_part(self._context)
        if context.settings.workers == 1:
            return [own]
        answers = await context.siblings.ask("GET", "/health-part", timeout_s=ASK_S, port=context.server_port)
        return [own, *(part for answer in answers.values() if (part := answer.json()) is not None)]

    async def _database(self) -> dict[str, Any]:
        began = time.monotonic()
        try:
            async with asyncio.timeout(CHECK_S):
                await self._context.store.ping()
        except (StoreError, TimeoutError):
            return {"status": "down"}
        return {"status": "up", "latency_ms": round((time.monotonic() - began) * 1000, 1)}

    async def _has_key(self) -> bool:
        try:
            async with asyncio.timeout(CHECK_S):
                await self._context.keys.key()
        except (KeyUnavailable, TimeoutError):
            return False
        return True


class _Report(RequestHandler):
    def initialize(self, health: Health) -> None:
        self.health = health

    def set_default_headers(self) -> None:
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/json; charset=utf-8")


class HealthDoor(_Report):
    """`GET /health`."""

    async def head(self) -> None:
        """Answer the status alone: some monitors ask so."""
        await self.get()

    async def get(self) -> None:
        """Answer 200 when the server works, 503 when it drains or does not work."""
        report = await self.health.report()
        self.set_status(200 if report["status"] in {"healthy", "degraded"} else 503)
        self.finish(json.dumps(report))


class ReadyDoor(_Report):
    """`GET /ready`."""

    async def head(self) -> None:
        """Answer the status alone."""
        await self.get()

    async def get(self) -> None:
        """Answer 200 when new sessions may be sent here."""
        ready = await self.health.is_ready()
        self.set_status(200 if ready else 503)
        self.finish(json.dumps({"ready": ready}))


class MetricsDoor(RequestHandler):
    """`GET /metrics`, on the health port only."""

    def initialize(self, context: Context) -> None:
        self.context = context

    async def get(self) -> None:
        """Answer Prometheus' text format, with several workers each one's figures under the label `worker`."""
        context, own = self.context, self.context.metrics.render()
        self.set_header("Content-Type", METRICS_TYPE)
        if context.settings.workers == 1:
            self.finish(own)
            return
        answers = await context.siblings.ask("GET", "/metrics", timeout_s=ASK_S, port=context.server_port)
        others = {worker: answer.body.decode() for worker, answer in answers.items() if answer.status == 200}
        self.finish(merged_metrics(dict(sorted({**others, context.worker: own.decode()}.items()))))
