"""What can go wrong in a simulated call; chosen at start, for one call, or on the command line.

The messages of Twilio itself are in `simulator.twilio_messages`; here stand only their disturbances.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from simulator.faults import Fault, UnknownFaultError


def _table(*faults: Fault) -> dict[str, Fault]:
    return {fault.name: fault for fault in faults}


# `after` counts milliseconds of the agent's speech the caller has heard for `stop_mid_answer`, milliseconds of the
# stream for the others that have it. `seconds` is how long it takes.
TWILIO_FAULTS: Mapping[str, Fault] = _table(
    Fault("wrong_webhook_signature", "webhooks are signed with another token"),
    Fault("no_webhook_signature", "webhooks carry no signature"),
    Fault("wrong_stream_signature", "the handshake is signed with another token"),
    Fault("no_stream_signature", "the handshake carries no signature"),
    Fault("browser_origin", "the handshake carries an Origin, as only a browser sends it"),
    Fault("no_start", "connected, and then neither start nor media"),
    Fault("late_start", "start comes long after connected", seconds=3.0),
    Fault("start_twice", "start is sent a second time", after=200),
    Fault("media_first", "media comes before start"),
    Fault("wrong_format", "start announces linear 16 kHz audio"),
    Fault("foreign_account", "start names an account that did not sign"),
    Fault("no_parameters", "start has no customParameters, so no token"),
    Fault("replayed_token", "a second socket uses the call's sid and token again", after=500, seconds=3.0),
    Fault("stolen_token", "a second socket uses the token for another call", after=500, seconds=3.0),
    Fault("stop_mid_answer", "the caller hangs up in the middle of speech", after=400),
    Fault("jitter", "frames are held back and come in bursts", seconds=0.2),
    Fault("lost_frames", "frames get lost and the timestamps jump", after=1000, seconds=0.2),
    Fault("socket_dies", "the TCP connection is aborted without stop", after=1000),
    Fault("half_open", "nothing is sent or read any more, the connection stays", after=1000),
    Fault("slow_reader", "messages to Twilio are read slowly, so the sender's buffers fill", seconds=0.5),
    Fault("unknown_events", "events nobody knows are mixed in", after=100),
    Fault("foreign_track", "audio of the outbound track is mixed in", after=100),
    Fault("garbage_text", "a frame that is not JSON is mixed in", after=300),
    Fault("rest_slow", "the REST API takes long to answer", seconds=3.0),
    Fault("rest_429", "the REST API refuses with 429 and code 20429"),
    Fault("rest_500", "the REST API fails with 500"),
)


def twilio_fault(text: str | Fault) -> Fault:
    """Read `NAME`, `NAME:AFTER` or `NAME:AFTER:SECONDS`; AFTER in milliseconds. A Fault is returned as it is.

    Raises:
        UnknownFaultError: If there is no such fault, or a number is none.
    """
    if isinstance(text, Fault):
        return text
    name, *numbers = text.split(":")
    if name not in TWILIO_FAULTS:
        raise UnknownFaultError(f"unknown fault {name!r}; there are: {', '.join(sorted(TWILIO_FAULTS))}")
    after, seconds = [*numbers, "", ""][:2]
    found = TWILIO_FAULTS[name]
    try:
        return replace(
            found, after=int(after) if after else found.after, seconds=float(seconds) if seconds else found.seconds
        )
    except ValueError:
        raise UnknownFaultError(f"fault {name!r}: {after!r} and {seconds!r} must be numbers") from None


class CallFaults:
    """The faults of one call."""

    def __init__(self, faults: Iterable[str | Fault] = ()) -> None:
        self._faults: Sequence[Fault] = [twilio_fault(item) for item in faults]
        self._struck: set[str] = set()

    def has(self, name: str) -> Fault | None:
        """Return the fault of that name, or None."""
        return next((item for item in self._faults if item.name == name), None)

    def due(self, name: str, elapsed_ms: int) -> Fault | None:
        """Return the fault once, when so many milliseconds are over; None before and afterwards."""
        found = self.has(name)
        if found is None or name in self._struck or elapsed_ms < found.after:
            return None
        self._struck.add(name)
        return found
