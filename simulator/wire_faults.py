"""What each fault of the wire does to a connection, when it strikes."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from simulator.faults import Fault
from simulator.items import new_id

# Larger than the 8 MiB that the Agents SDK accepts, smaller than the 16 MiB a careful client plans for.
HUGE_FRAME_BYTES = 9 * 1024 * 1024


class Victim(Protocol):
    """The connection, as a fault sees it."""

    def send(self, event: dict[str, Any]) -> None:
        """Send an event."""

    def write_raw(self, message: str | bytes) -> None:
        """Write a frame that is no event."""

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Close with a code."""

    def abort(self) -> None:
        """Drop the TCP connection."""

    def stall(self) -> None:
        """Send nothing any more."""

    def stop_pongs(self) -> None:
        """Neither answer nor send pings."""

    def expire(self) -> None:
        """End as after the longest life of a session."""


def _huge_frame(victim: Victim) -> None:
    item = {
        "id": new_id("item"), "object": "realtime.item", "type": "message", "role": "user", "status": "completed",
        "content": [{"type": "input_audio", "audio": "A" * HUGE_FRAME_BYTES}],
    }
    victim.send({"type": "conversation.item.retrieved", "event_id": new_id("event"), "item": item})


def _unknown_event(victim: Victim) -> None:
    victim.send({"type": "simulator.never_heard_of", "event_id": new_id("event"), "detail": {"nested": [1, 2]}})


_STRIKES: Mapping[str, Callable[[Victim], None]] = {
    "drop": lambda victim: victim.abort(),
    "drop_mid_audio": lambda victim: victim.abort(),
    "stall": lambda victim: victim.stall(),
    "close_1011": lambda victim: victim.close(1011, "internal error"),
    "close_1012": lambda victim: victim.close(1012, "service restart"),
    "close_1013": lambda victim: victim.close(1013, "try again later"),
    "garbage_text": lambda victim: victim.write_raw("{this is not JSON"),
    "garbage_binary": lambda victim: victim.write_raw(bytes(range(256))),
    "unknown_event": _unknown_event,
    "huge_frame": _huge_frame,
    "expire": lambda victim: victim.expire(),
    "no_pong": lambda victim: victim.stop_pongs(),
}


def strike(victim: Victim, fault: Fault) -> bool:
    """Do what the fault does to the wire; return False when it is not one of the wire."""
    act = _STRIKES.get(fault.name)
    if act:
        act(victim)
    return act is not None
