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
from core.client_requests import ClientRequests
from core.commands import Close, CloseUpstream, Command, Note, OpenUpstream, SaveProgress, optional, saved, send
from core.configuration import Configuration
from core.deadlines import CONFIGURE_S, OPEN_S, Deadlines
from core.errors import Ending
from core.exchange import AFTER_SPEECH_S, Exchange, Seen
from core.fields import OWN, object_of, text_of
from core.instructions import say_exactly
from core.limits import Limits
from core.plan import Plan
from core.pricing import Usage
from core.realtime import (
    FATAL_CODES,
    AudioDelta,
    BadEvent,
    Event,
    error_code,
    is_harmless,
    notice_event,
    shown_error,
)
from core.records import Turn
from core.recovery import STABLE_S, Loss, Retries, rotation_at

State = Literal["new", "opening", "configuring", "live", "ended"]

STALL_S = 20.0
"""A running response from which nothing comes for this long is taken for lost; reasoning models think for seconds."""

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
        generation, last_upstream: Number of the current link, 0 before the first; when it last said something.
        reconnects: How many links followed the first.
    """

    __slots__ = ("_configuration", "_is_announced", "_limits", "_live_since", "_requests", "_retries", "_rotate_at",
                 "_told_lost", "_was_live", "deadlines", "exchange", "generation", "last_upstream", "plan",
                 "reconnects", "state")  # fmt: skip

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
        self._configuration = Configuration(plan)
        self._was_live = False
        self._live_since = 0.0
        self.last_upstream = 0.0
        self._rotate_at = 0.0
        self._requests = ClientRequests()
        self._is_announced = False
        self._told_lost = False

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
        return [self._configure(f"{OWN}cfg_{generation}")]

    def upstream_event(self, generation: int, event: Event, now: float) -> Seen:
        """Take one event of the Realtime API."""
        if generation != self.generation or self.state not in {"configuring", "live"}:
            return Seen(False, [])
        self.last_upstream = now
        self.exchange.happenings.note("model", event["type"], now)
        name = "on_" + event["type"].replace(".", "_")
        if handler := getattr(self, "_" + name, None):
            seen: Seen = handler(event, now)
        else:
            handler = getattr(self.exchange, name, None)
            seen = handler(event, now) if handler else Seen(True, [])
            seen = Seen(seen.forward and self.is_live, seen.commands)
        seen = Seen(seen.forward, [*seen.commands, *self._after_exchange(event, now)])
        self.arm(now)
        return seen

    def audio_received(self, delta: AudioDelta, now: float) -> bool:
        """Count one audio frame; False when it must not reach the listener."""
        if self.state != "live":
            return False
        self.last_upstream = now
        return self.exchange.audio_received(delta, now)

    def upstream_lost(self, generation: int, loss: Loss, now: float) -> list[Command]:
        """Open the next link, or end when trying again cannot help."""
        if generation != self.generation or self.state in {"new", "ended"}:
            return []
        if self.is_live and now - self._live_since >= STABLE_S:
            self._retries.stable()
        fields = {"cause": loss.cause, "code": loss.code or None, "status": loss.status, "generation": generation}
        commands = [CloseUpstream(), Note("upstream lost", fields, "warning"), *self.exchange.upstream_lost(now)]
        self._requests.forget_all()
        retry = self._retries.next(loss)
        if retry is None:
            return [*commands, *self.end(errors.UpstreamUnavailable.ending, now)]
        delay_s, refresh_key = retry
        if not loss.is_planned or self.exchange.owes_answer:
            text = "The voice service was lost; trying again." if self._was_live else "The voice service is slow."
            commands.append(self.exchange.told(notice_event("reconnecting", text, retry_in_ms=round(delay_s * 1000))))
            self._told_lost = True
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
            self.exchange.happenings.note("client", kind, now)
        if kind == "response.create":
            commands = self._client_wants_response(event, now)
        elif kind == "conversation.item.truncate":
            commands = self.exchange.client_heard(event["item_id"], event["audio_end_ms"], event.get("event_id"), now)
        elif kind == "session.update":
            event_id = self.exchange.own_id("cu")
            self._requests.sent(event_id, event)
            commands = [send({**event, "event_id": event_id})]
        else:
            if kind == "response.cancel":
                self.exchange.client_cancelled(event.get("response_id"))
            commands = [send(event)]
        self.arm(now)
        return commands

    def _client_wants_response(self, event: Event, now: float) -> list[Command]:
        sequencer = self.exchange.sequencer
        if sequencer.is_busy and sequencer.state != "cancelling":
            code = "conversation_already_has_active_response"
            raise BadEvent(code, "A response is running. Cancel it or wait for its end.")
        commands = self.exchange.request("client", now, event.get("response"))
        self._requests.sent(sequencer.next_event_id, event)
        return commands

    def tool_finished(self, call_id: str, output: str, now: float) -> list[Command]:
        """Give a tool's output to the model; dropped when the link that asked for it is gone."""
        commands = self.exchange.tool_finished(call_id, output, now) if self.is_live else []
        self.arm(now)
        return commands

    # ------------------------------------------------------------------ time and the end

    def time_passed(self, now: float) -> list[Command]:
        """Act on every deadline that is over."""
        commands: list[Command] = []
        for name in self.deadlines.over(now):
            commands += getattr(self, f"_over_{name}")(now)
        self.arm(now)
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

    def arm(self, now: float) -> None:
        """Set the deadlines that follow from what is going on."""
        if self.state == "ended":
            return
        for name, at in (
            ("cut", self.exchange.answers.cut_at),
            ("heard", self.exchange.answers.heard_at),
            ("overdue", self.exchange.transcript.next_overdue()),
            ("goodbye", self.exchange.goodbye_at),
        ):
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
        if now < self.last_upstream + STALL_S:
            self.deadlines.set("stall", self.last_upstream + STALL_S)
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
        self._limits.active(self.exchange.playback.ended_at if self.exchange.is_quiet(now) else now)
        until = self._limits.idle_until(now)
        if until is None:
            return self.end(errors.IdleTimeout.ending, now)
        self.deadlines.set("idle", until)
        return []

    def _over_time_limit_soon(self, now: float) -> list[Command]:
        message, left_s = "The longest session time is nearly over.", round(self._limits.ends_at - now)
        return [self.exchange.told(notice_event("time_limit_soon", message, left_s=left_s))]

    def _over_time_limit(self, now: float) -> list[Command]:
        return self.end(errors.TimeLimit.ending, now)

    def _over_budget(self, now: float) -> list[Command]:
        return self.end(errors.BudgetExhausted.ending, now)

    def _over_goodbye(self, now: float) -> list[Command]:
        return self.end(errors.AGENT_ENDED, now)

    # ------------------------------------------------------------------ events of the session

    def _on_session_created(self, event: Event, now: float) -> Seen:
        expires_at = object_of(event, "session").get("expires_at")
        limit_at = expires_at - self.plan.wall_offset_s if isinstance(expires_at, int | float) else None
        self._rotate_at = rotation_at(limit_at, now)
        is_first, self._is_announced = not self._is_announced, True
        return Seen(is_first, [])

    def _on_session_updated(self, event: Event, now: float) -> Seen:
        if self.is_live:
            self._configuration.changed(self._requests.configured() or {})
            self._follow_turn_detection(event)
            return Seen(True, [])
        again, self._rotate_at = self._was_live, self._rotate_at or rotation_at(None, now)
        self._enter("live", now)
        self._follow_turn_detection(event)
        return Seen(not again, self._seed(now, again=again))

    def _follow_turn_detection(self, event: Event) -> None:
        detection = self._configuration.turn_detection(object_of(event, "session"))
        self.exchange.interrupts = bool(detection) and detection.get("interrupt_response", True) is not False
        self.exchange.replies = bool(detection) and detection.get("create_response", True) is not False

    def _seed(self, now: float, *, again: bool) -> list[Command]:
        """Tell a fresh session what was said, then go on where the talk stood."""
        commands = self.exchange.replay(REPLAYED_TURNS)
        if self._told_lost:
            self._told_lost = False
            commands.append(self.exchange.told(notice_event("reconnected", "The voice service is back.")))
        if again and self.exchange.owes_answer:
            commands += self.exchange.answer_after_loss(now)
        elif not again and self.plan.greets and self.plan.agent.greeting:
            fields = {"instructions": say_exactly(self.plan.agent.greeting)}
            commands += self.exchange.request("greeting", now, fields)
        return commands

    def _on_error(self, event: Event, now: float) -> Seen:
        code, error = error_code(event), object_of(event, "error")
        event_id = text_of(error, "event_id") or None
        if code in FATAL_CODES or code == "session_expired":
            return Seen(False, self.upstream_lost(self.generation, Loss("error", code=code), now))
        if self.state == "configuring":
            return Seen(False, self._config_refused(code, error, now))
        if code == "response_cancel_not_active":
            return Seen(False, optional(self.exchange.sequencer.not_active()))
        if code == "conversation_already_has_active_response" and self._waits(event_id):
            return Seen(False, [])
        return Seen(False, self._event_refused(event_id, code, error))

    def _waits(self, event_id: str | None) -> bool:
        """Let a create that collided with another response wait; the client hears nothing, it will be served."""
        sequencer = self.exchange.sequencer
        if not sequencer.collided(event_id):
            return False
        self._requests.deferred(event_id or "", sequencer.next_event_id)
        return True

    def _config_refused(self, code: str, error: Mapping[str, Any], now: float) -> list[Command]:
        """Try once more with less; an agent whose reduced session is refused too cannot be had."""
        note = Note("session configuration refused", {"code": code, "param": error.get("param")}, "warning")
        if not self._configuration.reduce():
            return [note, *self.end(errors.UpstreamUnavailable.ending, now)]
        return [note, self._configure(f"{OWN}cfg_{self.generation}r")]

    def _configure(self, event_id: str) -> Command:
        return send({"type": "session.update", "event_id": event_id, "session": self._configuration.session})

    def _event_refused(self, event_id: str | None, code: str, error: Mapping[str, Any]) -> list[Command]:
        """An event was refused; the client hears of it unless this server had made it by itself."""
        is_asked, asked_id = self._requests.refused(event_id, error.get("param"))
        if is_asked:
            told = [self.exchange.told(shown_error(error, code, asked_id))]
            return [*told, *optional(self.exchange.sequencer.refused(event_id or ""))]
        if event_id is not None and event_id.startswith(OWN):
            note = Note("upstream refused an event", {"code": code, "event": event_id.rsplit("_", 1)[0]}, "warning")
            return [note, *optional(self.exchange.sequencer.refused(event_id))]
        return [] if is_harmless(error, code) else [self.exchange.told(shown_error(error, code, event_id))]

    def _open(self, now: float, delay_s: float, *, refresh_key: bool = False) -> list[Command]:
        self.generation += 1
        self._rotate_at = 0.0
        self._enter("opening", now)
        self.deadlines.set("open", now + delay_s + OPEN_S)
        return [OpenUpstream(self.generation, delay_s, refresh_key)]
