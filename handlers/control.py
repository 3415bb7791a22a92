"""The control socket of a worker: what its siblings and the command line on this machine ask it.

Served on `{STATE_DIR}/run/{worker}.sock`, which only the server's own user may open; the folder guards it, so there is
no token. `services.siblings` is the other end.

    GET  /metrics        this worker's own metrics, Prometheus' text format
    GET  /health-part    this worker's share of /health: counts and checks
    POST /replace        {"conversation_id", "user_id", "before"?} -> {"replaced"}: the talk goes on with a sibling
    GET  /sessions       how this worker is doing, and its live sessions; no content
    GET  /sessions/{conversation_id}           one of them with transcript and events; ?prompt=1: instructions too
    POST /sessions/{conversation_id}/end       {"operator"} -> {"ended"}: end it politely; the operator is for the log
"""

from __future__ import annotations

import json
import time
from typing import Any

from tornado.web import Application, RequestHandler

from core.errors import OPERATOR_ENDED
from handlers import live
from handlers.context import Context
from handlers.elsewhere import end_here
from handlers.health import METRICS_TYPE, health_part
from handlers.relay import Relay


def control_doors(context: Context) -> Application:
    """Return the URL table of the control socket."""
    own = {"context": context}
    return Application(
        [
            (r"/metrics", OwnMetricsDoor, own),
            (r"/health-part", HealthPartDoor, own),
            (r"/replace", ReplaceDoor, own),
            (r"/sessions", SessionsDoor, own),
            (r"/sessions/([0-9a-f-]{36})", SessionDoor, own),
            (r"/sessions/([0-9a-f-]{36})/end", EndSessionDoor, own),
        ],
        log_function=lambda handler: None,
    )


class ControlDoor(RequestHandler):
    """A door of the control socket: JSON in, JSON out."""

    def initialize(self, context: Context) -> None:
        self.context = context

    def answer(self, value: Any) -> None:
        """Answer with JSON."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(value))

    def body(self) -> dict[str, Any] | None:
        """Return the request's JSON object; None after 400 was answered because it is none."""
        try:
            value = json.loads(self.request.body)
        except ValueError:
            value = None
        if isinstance(value, dict):
            return value
        self.set_status(400)
        self.answer({"error": {"code": "bad_request", "message": "The body must be a JSON object."}})
        return None


class OwnMetricsDoor(ControlDoor):
    """`GET /metrics`."""

    def get(self) -> None:
        """Answer this worker's metrics, without the siblings'."""
        self.set_header("Content-Type", METRICS_TYPE)
        self.finish(self.context.metrics.render())


class HealthPartDoor(ControlDoor):
    """`GET /health-part`."""

    def get(self) -> None:
        """Answer what of /health is this worker's own."""
        self.answer(health_part(self.context))


class ReplaceDoor(ControlDoor):
    """`POST /replace`."""

    async def post(self) -> None:
        """End the user's session of a conversation here; see `end_here`."""
        asked = self.body()
        if asked is None:
            return
        ended = await end_here(self.context, asked)
        self.answer({"replaced": ended})


class SessionsDoor(ControlDoor):
    """`GET /sessions`."""

    def get(self) -> None:
        """Answer how this worker is doing, with the row of every live session."""
        self.answer(live.process(self.context, time.monotonic()))


class _LiveDoor(ControlDoor):
    """A door of one live session."""

    def session(self, conversation_id: str) -> Relay | None:
        """Return the live session; None after 404 was answered because it is not one of this worker's."""
        relay = live.find(self.context, conversation_id)
        if relay is None:
            self.set_status(404)
            self.answer({"error": {"code": "not_found", "message": "No such session is live here."}})
        return relay


class SessionDoor(_LiveDoor):
    """`GET /sessions/{conversation_id}`."""

    def get(self, conversation_id: str) -> None:
        """Answer everything about a live session.

        Whoever asks writes the audit line, once for a view that looks again every second.
        """
        relay = self.session(conversation_id)
        if relay is not None:
            with_prompt = self.get_query_argument("prompt", "") == "1"
            self.answer(live.detail(relay, time.monotonic(), with_prompt=with_prompt))


class EndSessionDoor(_LiveDoor):
    """`POST /sessions/{conversation_id}/end`."""

    def post(self, conversation_id: str) -> None:
        """End a live session, close code 1000, after a spoken sentence on the phone, and write an audit line."""
        asked = self.body()
        relay = self.session(conversation_id) if asked is not None else None
        if asked is None or relay is None:
            return
        operator = str(asked.get("operator") or "unknown")
        self.context.logger.info(
            "session ended by operator", audit=True, operator=operator, conversation_id=conversation_id
        )
        relay.end(OPERATOR_ENDED)
        self.answer({"ended": True})
