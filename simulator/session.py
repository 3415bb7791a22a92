"""One realtime session: takes client events, refuses the bad ones, hands on the others. Handlers bear event names."""
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from simulator.context import Context
from simulator.items import item_from_client
from simulator.records import SessionRecord
from simulator.responses import Responses
from simulator.schema import Invalid
from simulator.shapes import check_client_event
from simulator.turns import Turns


class RealtimeSession:
    """The service's side of one connection."""

    def __init__(self, context: Context, record: SessionRecord) -> None:
        self._context = context
        self._record = record
        self._responses = Responses(context)
        self._turns = Turns(context, self._responses)

    def begin(self) -> None:
        """Send `session.created`; the session ends itself when its time is over."""
        self._context.send("session.created", session=self._context.config.shown())
        self._context.later(self._context.settings.session_limit_s, self.expire)

    def expire(self) -> None:
        """End as the service does after the longest life of a session."""
        minutes = round(self._context.settings.session_limit_s / 60, 1)
        message = f"Your session hit the maximum duration of {minutes:g} minutes."
        self._context.refuse(Invalid("session_expired", message))
        self._context.wire.close(1001, message)

    def receive(self, message: str | bytes) -> None:
        """Take one frame; everything wrong with it becomes an `error` event."""
        if isinstance(message, bytes):
            self._context.refuse(Invalid("invalid_event", "Binary frames are not supported: send JSON text."))
            return
        try:
            event = json.loads(message)
        except (ValueError, RecursionError):
            self._context.refuse(Invalid("invalid_json", "The event is not valid JSON."))
            return
        if not isinstance(event, dict):
            self._context.refuse(Invalid("invalid_event", "The event must be a JSON object."))
            return
        self._record.took(event)
        event_id = event.get("event_id") if isinstance(event.get("event_id"), str) else None
        try:
            check_client_event(event)
            getattr(self, "_on_" + event["type"].replace(".", "_"))(event)
        except Invalid as refusal:
            self._context.refuse(refusal, event_id)

    def _on_session_update(self, event: Mapping[str, Any]) -> None:
        if self._context.faults.pop("reject_update"):
            raise Invalid("invalid_value", "Invalid value: the session could not be updated.", "session")
        self._context.config.update(event["session"])
        self._record.config = self._context.config.shown()
        self._context.send("session.updated", session=self._record.config)

    def _on_input_audio_buffer_append(self, event: Mapping[str, Any]) -> None:
        self._turns.append(event["audio"])
        self._record.audio_in_ms = self._turns.heard_ms

    def _on_input_audio_buffer_commit(self, _: Mapping[str, Any]) -> None:
        self._turns.commit()

    def _on_input_audio_buffer_clear(self, _: Mapping[str, Any]) -> None:
        self._turns.clear()

    def _on_conversation_item_create(self, event: Mapping[str, Any]) -> None:
        data = event["item"]
        if data["type"] == "function_call_output":
            self._require_call(data["call_id"])
        item = item_from_client(data, self._context.config.input_format)
        self._context.conversation.add(item, event.get("previous_item_id"))
        previous = self._context.conversation.previous_id(item)
        for step in ("added", "done"):
            self._context.send(f"conversation.item.{step}", previous_item_id=previous, item=item.data)

    def _require_call(self, call_id: str) -> None:
        calls = (item for item in self._context.conversation if item.data["type"] == "function_call")
        if not any(call.data["call_id"] == call_id for call in calls):
            message = f"Tool call ID '{call_id}' not found in conversation."
            raise Invalid("invalid_tool_call_id", message, "item.call_id")

    def _on_conversation_item_retrieve(self, event: Mapping[str, Any]) -> None:
        item = self._context.conversation.require(event["item_id"], "retrieve")
        self._context.send("conversation.item.retrieved", item=item.with_audio())

    def _on_conversation_item_truncate(self, event: Mapping[str, Any]) -> None:
        cut = {name: event[name] for name in ("item_id", "content_index", "audio_end_ms")}
        self._context.conversation.truncate(cut["item_id"], cut["audio_end_ms"], cut["content_index"])
        self._context.send("conversation.item.truncated", **cut)

    def _on_conversation_item_delete(self, event: Mapping[str, Any]) -> None:
        self._context.conversation.delete(event["item_id"])
        self._context.send("conversation.item.deleted", item_id=event["item_id"])

    def _on_response_create(self, event: Mapping[str, Any]) -> None:
        self._responses.create(event.get("response", {}))

    def _on_response_cancel(self, event: Mapping[str, Any]) -> None:
        self._responses.cancel("client_cancelled", event.get("response_id"))
