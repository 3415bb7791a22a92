"""One conversation with the model, whatever line it comes over: states, links, configuration, deadlines, recovery.

    state        means                                             left by
    new          nothing was asked for                             begin
    opening      a link to the Realtime API is being opened        upstream_opened, upstream_lost, deadline `open`
    configuring  our session.update waits for session.updated      session.updated, error, deadline `configure`
    live         audio and events flow                             upstream_lost, end
    ended        nothing more happens                              -

Links are numbered; what an old one still says is dropped. Two rules: all state changes are in `_enter`; this file does
not know which line it serves. What is said is in `exchange.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from core import errors
from core.commands import (
    Close,
    CloseUpstream,
    Command,
    Note,
    OpenUpstream,
    SaveProgress,
    optional,
    saved,
    send,
)
from core.deadlines import Deadlines
from core.errors import Ending
from core.exchange import AFTER_SPEECH_S, OWN, Exchange, Seen
from core.instructions import greeting_instructions
from core.limits import Limits
from core.plan import Plan, merged, reduced_config, session_config
from core.pricing import Usage
from core.realtime import (
    FATAL_CODES,
    HARMLESS_CODES,
    AudioDelta,
    BadEvent,
    Event,
    error_code,
    notice_event,
    shown_error,
)
from core.records import Turn
from core.recovery import STABLE_S, Loss, Retries

State = Literal["new", "opening", "configuring", "live", "ended"]

OPEN_S = 12.0
"""Longest wait for a link: the 8 s handshake limit of `services/upstream.py`, name resolution and a margin."""

CONFIGURE_S = 5.0
"""Longest wait for `session.updated`, which usually takes one round trip."""

STALL_S = 20.0
"""A running response from which nothing comes for this long is taken for lost; reasoning models think for seconds."""

ROTATE_BEFORE_S = 300.0
"""How long before the session's limit a new one is opened at the next pause (reference, section 13, P12)."""

SESSION_LIMIT_S = 3600.0
"""Session limit when the API names none. Source: OpenAI Realtime reference, section 9.4."""

REPLAYED_TURNS = 20
"""Turns given to a fresh session. Source: OpenAI Realtime reference, section 13."""


class Conversation:
    """A conversation of one agent with one person.

    Args:
        plan: What was decided before it begins.
        history: Stored turns of a resumed conversation, oldest first.
        next_position: First free position in the stored conversation.
        usage: Totals of a resumed conversation.

    Attributes:
        state: See the table above.
        generation: Number of the current link; 0 before the first.
        reconnects: How many links followed the first.
    """

    def __init__(
        self, plan: Plan, *, history: list[Turn] | None = None, next_position: int = 0, usage: Usage | None = None
    ) -> None:
        self.plan = plan
        self.state: State = "new"
        self.generation = 0
        self.reconnects = 0
        self.exchange = Exchange(plan, history or [], next_position, usage or Usage())
        self.deadlines = Deadlines()
        self._limits = Limits(plan, self.exchange.usage.cost_usd)
        self._retries = Retries()
        self._overrides: Event = {}
        self._reduced = False
        self._was_live = False
        self._live_since = 0.0
        self._last_upstream = 0.0
        self._rotate_at = 0.0
        self._for_client: dict[str, tuple[Event, str | None]] = {}

    @property
    def is_live(self) -> bool:
        """True while audio may flow in both directions."""
        return self.state == "live"

    @property
    def next_deadline(self) -> float | None:
        """When `time_passed` wants to be called; None only when the conversation has ended."""
        return self.deadlines.next

    # ------------------------------------------------------------------ facts about the link

    def begin(self, now: float) -> list[Command]:
        """Open the first link."""
        self._limits.begin(self.deadlines, now)
        return self._open(now, 0.0)

    def upstream_opened(self, generation: int, now: float) -> list[Command]:
        """Configure the link that is open; nothing else may be sent on it before."""
        if generation != self.generation or self.state != "opening":
            return []
        self._enter("configuring", now)
        config = reduced_config(self.plan) if self._reduced else session_config(self.plan, self._overrides)
        return [send({"type": "session.update", "event_id": f"{OWN}cfg_{generation}", "session": config})]

    def upstream_event(self, generation: int, event: Event, now: float) -> Seen:
        """Take one event of the Realtime API."""
        if generation != self.generation or self.state not in {"configuring", "live"}:
            return Seen(False, [])
        self._last_upstream = now
        name = "on_" + event["type"].replace(".", "_")
        handler = getattr(self, "_" + name, None)
        if handler is not None:
            seen: Seen = handler(event, now)
        else:
            handler = getattr(self.exchange, name, None)
            seen = handler(event, now) if handler is not None else Seen(True, [])
            seen = Seen(seen.forward and self.is_live, seen.commands)
        commands = [*seen.commands, *self._after_exchange(event, now)]
        self._arm(now)
        return Seen(seen.forward, commands)

    def audio_received(self, delta: AudioDelta, now: float) -> bool:
        """Count one audio frame; False when it must not reach the listener."""
        self._last_upstream = now
        return self.exchange.audio_received(delta, now)

    def upstream_lost(self, generation: int, loss: Loss, now: float) -> list[Command]:
        """Open the next link, or end when trying again cannot help."""
        if generation != self.generation or self.state in {"new", "ended"}:
            return []
        if self.is_live and now - self._live_since >= STABLE_S:
            self._retries.stable()
        fields = {"cause": loss.cause, "code": loss.code or None, "status": loss.status, "generation": generation}
        commands: list[Command] = [CloseUpstream(), Note("upstream lost", fields, "warning")]
        commands += self.exchange.upstream_lost(now)
        retry = self._retries.next(loss)
        if retry is None:
            return [*commands, *self.end(errors.UpstreamUnavailable.ending, now)]
        delay_s, refresh_key = retry
        if not loss.is_planned:
            text = "The voice service was lost; trying again." if self._was_live else "The voice service is slow."
            commands.append(self.exchange.told(notice_event("reconnecting", text, retry_in_ms=round(delay_s * 1000))))
        self.reconnects += 1
        return [*commands, *self._open(now, delay_s, refresh_key=refresh_key)]

    def _after_exchange(self, event: Event, now: float) -> list[Command]:
        """Act on what an event left behind: activity, a spent budget, a failure no retry mends."""
        if event["type"].startswith("input_audio_buffer.speech"):
            self._limits.active(now)
        if event["type"] != "response.done" or self.state == "ended":
            return []
        if self.exchange.fatal_code is not None:
            return self.upstream_lost(self.generation, Loss("error", code=self.exchange.fatal_code), now)
        notice: list[Command] = []
        if self._limits.spent(self.exchange.usage.cost_usd):
            notice.append(self.exchange.told(notice_event("budget_soon", "Most of the budget for today is used up.")))
        if self._limits.is_spent:
            self.deadlines.set("budget", self.exchange.playback.ends_at(now) + AFTER_SPEECH_S)
        return notice

    # ------------------------------------------------------------------ facts about the client and the tools

    def client_event(self, event: Event, now: float) -> list[Command]:
        """Take one event that `core.policy` let pass, while live.

        Raises:
            BadEvent: If the event does not fit what is going on.
        """
        kind = event["type"]
        if kind != "input_audio_buffer.append":
            self._limits.active(now)
        if kind == "response.create":
            commands = self._client_wants_response(event, now)
        elif kind == "conversation.item.truncate":
            commands = self.exchange.client_heard(event["item_id"], event["audio_end_ms"], event.get("event_id"))
        elif kind == "session.update":
            event_id = self.exchange.own_id("cu")
            self._remember(event_id, event)
            commands = [send({**event, "event_id": event_id})]
        else:
            if kind == "response.cancel":
                self.exchange.sequencer.cancel()
            commands = [send(event)]
        self._arm(now)
        return commands

    def _client_wants_response(self, event: Event, now: float) -> list[Command]:
        sequencer = self.exchange.sequencer
        if sequencer.is_busy and sequencer.state != "cancelling":
            code = "conversation_already_has_active_response"
            raise BadEvent(code, "A response is running. Cancel it or wait for its end.")
        commands = self.exchange.request("client", now, event.get("response"))
        self._remember(sequencer.next_event_id, event)
        return commands

    def _remember(self, event_id: str, event: Event) -> None:
        """Keep which client event stands behind one of ours, for the errors about it; at most 32."""
        self._for_client[event_id] = (event, event.get("event_id"))
        if len(self._for_client) > 32:  # more can only be unanswered when the link is dead
            del self._for_client[next(iter(self._for_client))]

    def tool_finished(self, call_id: str, output: str, now: float) -> list[Command]:
        """Give a tool's output to the model; dropped when the link that asked for it is gone."""
        commands = self.exchange.tool_finished(call_id, output, now) if self.is_live else []
        self._arm(now)
        return commands

    # ------------------------------------------------------------------ time and the end

    def time_passed(self, now: float) -> list[Command]:
        """Act on every deadline that is over."""
        commands: list[Command] = []
        for name in self.deadlines.over(now):
            if self.state != "ended":
                commands += getattr(self, f"_over_{name}")(now)
        self._arm(now)
        return commands

    def end(self, why: Ending, now: float, message: str = "") -> list[Command]:
        """End the conversation: everything said is stored, the link is closed, then the client's socket."""
        if self.state == "ended":
            return []
        commands = self.exchange.end(now)
        self._enter("ended", now)
        usage = self.exchange.usage
        count = self.exchange.transcript.turn_count
        progress = SaveProgress(count, usage.as_json(), usage.cost_usd, end_reason=why.end_reason)
        return [*commands, progress, CloseUpstream(), Close(why, message)]

    def _enter(self, state: State, now: float) -> None:
        self.state = state
        for name in ("open", "configure", "rotate", "stall"):
            self.deadlines.clear(name)
        if state == "configuring":
            self.deadlines.set("configure", now + CONFIGURE_S)
        elif state == "live":
            self._was_live, self._live_since = True, now
            self.deadlines.set("rotate", self._rotate_at)
        elif state == "ended":
            self.deadlines.clear_all()

    def _arm(self, now: float) -> None:
        """Set the deadlines that follow from what is going on."""
        if self.state == "ended":
            return
        for name, at in (
            ("cut", self.exchange.answers.cut_at),
            ("heard", self.exchange.answers.heard_at),
            ("overdue", self.exchange.transcript.next_overdue()),
            ("goodbye", self.exchange.goodbye_at),
        ):
            if at is None:
                self.deadlines.clear(name)
            else:
                self.deadlines.set(name, at)
        if not (self.is_live and self.exchange.sequencer.is_busy):
            self.deadlines.clear("stall")
        elif "stall" not in self.deadlines:
            self.deadlines.set("stall", now + STALL_S)

    def _over_open(self, now: float) -> list[Command]:
        return self.upstream_lost(self.generation, Loss("timeout"), now)

    def _over_configure(self, now: float) -> list[Command]:
        return self.upstream_lost(self.generation, Loss("timeout", code="session_not_configured"), now)

    def _over_stall(self, now: float) -> list[Command]:
        if now - self._last_upstream < STALL_S:
            self.deadlines.set("stall", self._last_upstream + STALL_S)
            return []
        return self.upstream_lost(self.generation, Loss("stalled"), now)

    def _over_rotate(self, now: float) -> list[Command]:
        """Change to a new session at a pause; the API ends the old one in a few minutes anyway."""
        if not self.exchange.is_quiet(now):
            self.deadlines.set("rotate", now + 1.0)
            return []
        return self.upstream_lost(self.generation, Loss("rotated"), now)

    def _over_cut(self, now: float) -> list[Command]:
        return self.exchange.cut_unreported(is_live=self.is_live)

    def _over_heard(self, now: float) -> list[Command]:
        return saved(self.exchange.answers.heard(now))

    def _over_overdue(self, now: float) -> list[Command]:
        return saved(self.exchange.transcript.overdue(now))

    def _over_idle(self, now: float) -> list[Command]:
        if not self.exchange.is_quiet(now):
            self._limits.active(now)
        until = self._limits.idle_until(now)
        if until is None:
            return self.end(errors.IdleTimeout.ending, now)
        self.deadlines.set("idle", until)
        return []

    def _over_time_limit_soon(self, now: float) -> list[Command]:
        left_s = round(self._limits.ends_at - now)
        return [
            self.exchange.told(
                notice_event("time_limit_soon", "The longest session time is nearly over.", left_s=left_s)
            )
        ]

    def _over_time_limit(self, now: float) -> list[Command]:
        return self.end(errors.TimeLimit.ending, now)

    def _over_budget(self, now: float) -> list[Command]:
        return self.end(errors.BudgetExhausted.ending, now)

    def _over_goodbye(self, now: float) -> list[Command]:
        return self.end(errors.AGENT_ENDED, now)

    # ------------------------------------------------------------------ events of the session

    def _on_session_created(self, event: Event, now: float) -> Seen:
        session = event.get("session")
        expires = session.get("expires_at") if isinstance(session, dict) else None
        limit_at = expires - self.plan.wall_offset_s if isinstance(expires, int | float) else now + SESSION_LIMIT_S
        self._rotate_at = max(limit_at - ROTATE_BEFORE_S, now + STABLE_S)
        return Seen(not self._was_live, [])

    def _on_session_updated(self, event: Event, now: float) -> Seen:
        if self.is_live:
            changes = [key for key in self._for_client if key.startswith(f"{OWN}cu_")]
            if changes:
                change, _ = self._for_client.pop(changes[0])
                self._overrides = merged(self._overrides, change["session"])
                self._follow_turn_detection()
            return Seen(True, [])
        again = self._was_live
        self._rotate_at = self._rotate_at or now + SESSION_LIMIT_S - ROTATE_BEFORE_S
        self._enter("live", now)
        self._follow_turn_detection()
        return Seen(not again, self._seed(now, again=again))

    def _follow_turn_detection(self) -> None:
        detection = session_config(self.plan, self._overrides)["audio"]["input"]["turn_detection"]
        self.exchange.interrupts = bool(detection) and detection.get("interrupt_response", True) is not False

    def _seed(self, now: float, *, again: bool) -> list[Command]:
        """Tell a fresh session what was said, then go on where the talk stood."""
        commands = self.exchange.replay(REPLAYED_TURNS)
        if again:
            commands.append(self.exchange.told(notice_event("reconnected", "The voice service is back.")))
            if self.exchange.owes_answer:
                commands += self.exchange.request("resume", now)
        elif self.plan.greets and self.plan.agent.greeting:
            fields = {"instructions": greeting_instructions(self.plan.agent.greeting)}
            commands += self.exchange.request("greeting", now, fields)
        return commands

    def _on_error(self, event: Event, now: float) -> Seen:
        code, error = error_code(event), event.get("error")
        error = error if isinstance(error, dict) else {}
        event_id = error.get("event_id")
        if code in FATAL_CODES or code == "session_expired":
            return Seen(False, self.upstream_lost(self.generation, Loss("error", code=code), now))
        if self.state == "configuring":
            return Seen(False, self._config_refused(code, error, now))
        if code == "response_cancel_not_active":
            return Seen(False, optional(self.exchange.sequencer.not_active()))
        if isinstance(event_id, str) and event_id.startswith(OWN):
            return Seen(False, self._own_event_refused(event_id, code, error))
        return Seen(False, [] if code in HARMLESS_CODES else [self.exchange.told(shown_error(error, code, event_id))])

    def _config_refused(self, code: str, error: Mapping[str, Any], now: float) -> list[Command]:
        """Try once more with less; an agent whose reduced session is refused too cannot be had."""
        note = Note("session configuration refused", {"code": code, "param": error.get("param")}, "warning")
        if self._reduced:
            return [note, *self.end(errors.UpstreamUnavailable.ending, now)]
        self._reduced = True
        event_id = f"{OWN}cfg_{self.generation}r"
        return [note, send({"type": "session.update", "event_id": event_id, "session": reduced_config(self.plan)})]

    def _own_event_refused(self, event_id: str, code: str, error: Mapping[str, Any]) -> list[Command]:
        """An event this server made was refused; the client hears of it only when it had asked for it."""
        self.exchange.sequencer.refused(event_id, code)
        asked = self._for_client.pop(event_id, None)
        if asked is not None:
            return [self.exchange.told(shown_error(error, code, asked[1]))]
        return [Note("upstream refused an event", {"code": code, "event": event_id.rsplit("_", 1)[0]}, "debug")]

    def _open(self, now: float, delay_s: float, *, refresh_key: bool = False) -> list[Command]:
        self.generation += 1
        self._for_client.clear()
        self._rotate_at = 0.0
        self._enter("opening", now)
        self.deadlines.set("open", now + delay_s + OPEN_S)
        return [OpenUpstream(self.generation, delay_s, refresh_key)]
