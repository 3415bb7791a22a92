"""What a live session looks like to an operator: plain objects for JSON, made when somebody looks and not before.

Nothing here is on the way of an audio frame. Levels are computed from the newest frame of each direction; what was said
is in `detail` alone, which whoever shows it writes an audit line for.
"""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from core.levels import level
from core.plan import Plan
from handlers.context import VERSION, Context, Identity
from handlers.relay import Relay
from services.metrics import resident_memory_bytes

SHOWN_TURNS = 200
"""Turns of a transcript shown at most, the newest: a talk of an hour."""

STALE_S = 0.6
"""A frame that was the newest one this long ago is over: frames of a talk come 10 to 50 a second."""

AUDIBLE = 0.004
"""RMS below which sound is silence, -48 dB of full scale: the pause that ends an answer is no level of its speech."""

STARTED_AT = time.monotonic()
"""When this process began to serve, in monotonic seconds."""


class _Seen:
    """What was seen of one direction of a session at earlier looks."""

    __slots__ = ("frame", "heard", "since")

    def __init__(self) -> None:
        self.frame = b""
        self.since = 0.0
        self.heard = 0.0


class Levels:
    """The levels of live sessions, 0 to 1 with three places, from the newest frame of each direction.

    What was the newest frame at the last look is remembered, to tell silence from a frame that nothing followed.
    """

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Relay, tuple[_Seen, _Seen]] = WeakKeyDictionary()

    def of(self, relay: Relay, now: float, *, agent_speaks: bool) -> tuple[float, float]:
        """Return the levels of person and agent.

        An answer arrives faster than it plays, so while the agent speaks its level is the last one that was audible.
        """
        relay.is_watched = True  # from here on; the first look at a session finds silence
        person, agent = self._seen.setdefault(relay, (_Seen(), _Seen()))
        audio_format = relay.session.conversation.plan.audio_format
        is_new = _look(person, relay.last_in, now)
        heard = round(level(person.frame, audio_format), 3) if is_new else 0.0
        is_new = _look(agent, relay.last_out, now)
        if not agent_speaks:
            agent.heard = 0.0
        elif is_new or not agent.heard:
            measured = round(level(agent.frame, audio_format), 3)
            agent.heard = measured if measured >= AUDIBLE else agent.heard
        return heard, agent.heard


def _look(seen: _Seen, frame: bytes, now: float) -> bool:
    """Remember the newest frame; return whether it is of this moment."""
    if frame is not seen.frame:
        seen.frame, seen.since = frame, now
    return bool(frame) and now - seen.since <= STALE_S


_levels = Levels()


class _Counters(NamedTuple):
    """What a relay counts for itself."""

    identity: Identity
    began: float
    bytes_out: int
    dropped: int


def _counters(relay: Relay) -> _Counters:
    """Read a relay's own counters. It is the one place outside that does: a relay owes nothing to whoever watches,
    so it keeps them as plain fields."""
    return _Counters(relay._identity, relay._began, relay._outbox.sent_bytes, relay._dropped)


def relays(context: Context) -> list[Relay]:
    """Return the live sessions, oldest first."""
    found = [session for session in context.connections if isinstance(session, Relay)]
    return sorted(found, key=lambda relay: _counters(relay).began)


def find(context: Context, conversation_id: str) -> Relay | None:
    """Return the live session of a conversation, or None."""
    return next((relay for relay in relays(context) if relay.conversation_id == conversation_id), None)


def row(relay: Relay, now: float) -> dict[str, Any]:
    """Return one line of the live table; nothing in it is content.

    Args:
        relay: The session.
        now: Monotonic time in seconds.
    """
    conversation, own = relay.session.conversation, _counters(relay)
    exchange, plan, who = conversation.exchange, conversation.plan, own.identity
    speaks_agent = exchange.answers.is_speaking(now)
    level_in, level_out = _levels.of(relay, now, agent_speaks=speaks_agent)
    return {
        "conversation_id": relay.conversation_id,
        "connection_id": who.connection_id,
        "channel": relay.channel,
        "agent_id": who.agent_id,
        "agent": plan.agent.name,
        "user_id": relay.user_id,
        "call_sid": who.call_sid,
        "since": round(time.time() - (now - own.began), 3),
        "age_s": round(now - own.began, 1),
        "state": conversation.state,
        "speaks": "user" if exchange.user_is_speaking else "agent" if speaks_agent else "nobody",
        "level_in": level_in,
        "level_out": level_out,
        "turns": exchange.transcript.turn_count,
        "first_audio_ms": _milliseconds(exchange.first_audio_s),
        "last_audio_ms": _milliseconds(exchange.last_audio_s),
        "cost_usd": round(exchange.usage.cost_usd - who.cost_before_usd, 6),
        "bytes_in": relay.bytes_in,
        "bytes_out": own.bytes_out,
        "dropped": own.dropped,
        "reconnects": conversation.reconnects,
        "model": plan.model,
        "voice": plan.voice,
    }


def detail(relay: Relay, now: float, *, with_prompt: bool = False) -> dict[str, Any]:
    """Return everything about a live session: its row, settings, transcript and the events of late.

    The caller writes an audit line: this holds what was said.

    Args:
        relay: The session.
        now: Monotonic time in seconds.
        with_prompt: Whether the agent's instructions and greeting are wanted too.
    """
    conversation = relay.session.conversation
    exchange = conversation.exchange
    wall = time.time() - now
    return {
        **row(relay, now),
        "settings": _settings(conversation.plan, with_prompt=with_prompt),
        "transcript": [turn._asdict() for turn in exchange.transcript.shown(SHOWN_TURNS)],
        "events": [
            {"at": round(wall + h.at, 3), "side": h.side, "type": h.name, "times": h.times} for h in exchange.happenings
        ],
        "usage": exchange.usage.as_json(),
        "end_reason": relay.ending.end_reason if relay.ending is not None else None,
    }


def process(context: Context, now: float) -> dict[str, Any]:
    """Return how this process is doing, and the row of every live session; times in seconds, no content."""
    connections, settings = context.connections, context.settings
    return {
        "pid": os.getpid(),
        "version": VERSION,
        "uptime_s": round(now - STARTED_AT),
        "draining": connections.is_draining,
        "port": settings.port,
        "environment": settings.environment,
        "simulated": context.simulated,
        "rss_bytes": round(resident_memory_bytes()),
        "lag_p99_ms": round(context.lag.p99_ms(), 1),
        "active": connections.active,
        "limits": {
            "max_connections": settings.max_connections,
            "max_sessions_per_user": settings.max_sessions_per_user,
            "connection_timeout_ms": settings.connection_timeout_ms,
            "idle_timeout_ms": settings.idle_timeout_ms,
            "daily_budget_usd": settings.daily_budget_usd,
        },
        "spool_pending": context.spool.stats().pending,
        **context.tally.as_json(),
        "troubles": context.logger.troubles,
        "sessions": [row(relay, now) for relay in relays(context)],
    }


def _settings(plan: Plan, *, with_prompt: bool) -> dict[str, Any]:
    """Return what a session was set up with; no secret is among it."""
    agent = plan.agent
    shown: dict[str, Any] = {
        "model": plan.model,
        "transcription_model": plan.transcription_model,
        "voice": plan.voice,
        "speed": agent.style.speed,
        "language": agent.style.language,
        "audio_format": plan.audio_format,
        "turn_detection": dict(agent.turn_detection) if agent.turn_detection is not None else "default",
        "interruptible": plan.interruptible,
        "max_output_tokens": agent.max_output_tokens,
        "max_session_s": plan.max_session_s,
        "idle_s": plan.idle_s,
        "budget_usd": plan.budget_usd,
        "tools": [tool.builtin or tool.name for tool in agent.tools],
        "knowledge": [source.name for source in agent.knowledge],
    }
    if with_prompt:
        shown |= {"instructions": agent.instructions, "greeting": agent.greeting}
    return shown


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
