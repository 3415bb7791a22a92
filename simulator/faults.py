"""Faults on request: everything that goes wrong with the real service, at a chosen moment.

A fault is chosen at start (constructor or `--fault`), for one connection by the query of the realtime URL
(`?fault=drop&fault_after=5`), or from the same process (`sim.faults.next("stall")`). `FAULTS` lists them.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

AUDIO = "response.output_audio.delta"

# Waiting orders and standing orders are few; a test that asks for more has a loop in it.
MAX_QUEUED = 100


class UnknownFaultError(ValueError):
    """Raised when a fault is asked for that is not in `FAULTS`, or with a number that is none."""


@dataclass(frozen=True)
class Fault:
    """One thing going wrong.

    Attributes:
        name: Key of `FAULTS`.
        after: It strikes when so many server events of type `of` were sent.
        of: Type of the counted events; empty counts all.
        seconds: How long it takes, for those that take time.
        help: What the client sees.
    """

    name: str
    help: str
    after: int = 0
    of: str = ""
    seconds: float = 0.0


def _table(*faults: Fault) -> dict[str, Fault]:
    return {fault.name: fault for fault in faults}


# At the door: before or instead of the upgrade.
DOOR = _table(
    Fault("refuse_401", "HTTP 401 instead of the upgrade, as Azure and gateways do"),
    Fault("refuse_403", "HTTP 403 instead of the upgrade"),
    Fault("refuse_429", "HTTP 429 with Retry-After instead of the upgrade"),
    Fault("refuse_500", "HTTP 500 instead of the upgrade"),
    Fault("slow_handshake", "the upgrade takes long", seconds=3.0),
    Fault("never_answer", "the upgrade request is never answered", seconds=120.0),
)

# First event `error`, then the close; never `session.created`. Also possible in a living session.
GREETING = _table(
    Fault("invalid_api_key", "error invalid_api_key, then close 3000"),
    Fault("model_not_found", "error model_not_found, then close 4004"),
    Fault("insufficient_quota", "error insufficient_quota, then close 3000"),
)

# Strike while the session runs, when the counted events were sent.
STRIKES = _table(
    Fault("drop", "the TCP connection is aborted (1006)", after=1),
    Fault("drop_mid_audio", "the TCP connection is aborted in the middle of speech (1006)", after=3, of=AUDIO),
    Fault("stall", "nothing is sent any more, not even pongs; the socket stays open", after=3, of=AUDIO),
    Fault("close_1011", "close 1011 in the middle of a response", after=3, of=AUDIO),
    Fault("close_1012", "close 1012 in the middle of a response", after=3, of=AUDIO),
    Fault("close_1013", "close 1013 in the middle of a response", after=3, of=AUDIO),
    Fault("garbage_text", "a text frame that is not JSON", after=1, of="response.created"),
    Fault("garbage_binary", "a binary frame", after=1, of="response.created"),
    Fault("unknown_event", "an event of a type nobody knows", after=1, of="response.created"),
    Fault("huge_frame", "one event of 9 MiB, as an item with long audio can be", after=1, of="response.created"),
    Fault("expire", "error session_expired, then close 1001", after=1, of="response.done"),
)

# Change how the session behaves; the first five strike once, the others last.
ONE_SHOT = _table(
    Fault("reject_update", "the next session.update is refused as a whole (invalid_value)"),
    Fault("response_failed", "the next response ends failed with server_error"),
    Fault("rate_limited", "the next response ends failed with rate_limit_exceeded"),
    Fault("quota_failed", "the next response ends failed with insufficient_quota"),
    Fault("slow_response", "the next response stays silent for long before its first output", seconds=6.0),
)
LASTING = _table(
    Fault("transcription_failed", "input transcription always fails"),
    Fault("transcription_late", "input transcription comes long after the answer", seconds=3.0),
    Fault("transcription_never", "input transcription never comes"),
    Fault("transcription_shuffled", "every other transcription comes long after the next one", seconds=3.0),
    Fault("no_pong", "pings are not answered and none are sent"),
    Fault("slow_reader", "reads one message in so many seconds, so the client's buffers fill", seconds=0.5),
)

FAULTS: Mapping[str, Fault] = {**DOOR, **GREETING, **STRIKES, **ONE_SHOT, **LASTING}


def fault(name: str, *, after: int | None = None, of: str | None = None, seconds: float | None = None) -> Fault:
    """Return a fault of the table, with other numbers where given.

    Raises:
        UnknownFaultError: If there is no fault of that name.
    """
    if name not in FAULTS:
        raise UnknownFaultError(f"unknown fault {name!r}; there are: {', '.join(sorted(FAULTS))}")
    changes = {"after": after, "of": of, "seconds": seconds}
    return replace(FAULTS[name], **{key: value for key, value in changes.items() if value is not None})  # type: ignore[arg-type]


def parse_fault(text: str) -> Fault:
    """Read `NAME`, `NAME:AFTER` or `NAME:AFTER:SECONDS`, as given on a command line or in the constructor."""
    name, *numbers = text.split(":")
    return _with_numbers(name, *[*numbers, "", ""][:2], of="")


def faults_in_query(arguments: Mapping[str, Sequence[bytes]]) -> list[Fault]:
    """Read `fault` (may repeat), `fault_after`, `fault_of`, `fault_seconds` of a realtime URL."""

    def last(name: str) -> str:
        values = arguments.get(name)
        return values[-1].decode("utf-8", "replace") if values else ""

    names = [value.decode("utf-8", "replace") for value in arguments.get("fault", ())]
    return [_with_numbers(name, last("fault_after"), last("fault_seconds"), of=last("fault_of")) for name in names]


def _with_numbers(name: str, after: str, seconds: str, *, of: str) -> Fault:
    try:
        numbers = int(after) if after else None, float(seconds) if seconds else None
    except ValueError:
        raise UnknownFaultError(f"fault {name!r}: {after!r} and {seconds!r} must be numbers") from None
    return fault(name, after=numbers[0], of=of or None, seconds=numbers[1])


class SessionFaults:
    """The faults of one session, and how far each is from striking."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._faults = list(faults)
        self._sent: dict[str, int] = {}

    def add(self, item: Fault) -> None:
        """Make the session suffer one more fault; events sent before do not count for it."""
        before = self._sent.get(item.of, 0)
        self._faults.append(replace(item, after=item.after + before))

    def has(self, *names: str) -> Fault | None:
        """Return the first fault of these names, or None; it stays."""
        return next((item for item in self._faults if item.name in names), None)

    def pop(self, *names: str) -> Fault | None:
        """Return and remove the first fault of these names, or None."""
        found = self.has(*names)
        if found:
            self._faults.remove(found)
        return found

    def event_sent(self, event_type: str) -> list[Fault]:
        """Count a server event; return and remove the faults that strike now."""
        for key in ("", event_type):
            self._sent[key] = self._sent.get(key, 0) + 1
        due = [f for f in self._faults if f.name in STRIKES and self._sent.get(f.of, 0) >= f.after]
        for item in due:
            self._faults.remove(item)
        return due


class FaultControl:
    """The simulator's switchboard: which faults the next sessions, all sessions, or the living ones get."""

    def __init__(self, always: Sequence[Fault] = ()) -> None:
        self._always = list(always)
        self._next: deque[list[Fault]] = deque(maxlen=MAX_QUEUED)
        self._living: set[Callable[[Fault], None]] = set()

    def next(self, *names: str, after: int | None = None, of: str | None = None, seconds: float | None = None) -> None:
        """Give these faults to the next connection that has no orders yet; no names: only the standing ones."""
        self._next.append([fault(name, after=after, of=of, seconds=seconds) for name in names])

    def always(
        self, name: str, *, after: int | None = None, of: str | None = None, seconds: float | None = None
    ) -> None:
        """Give this fault to every connection from here on."""
        self._always.append(fault(name, after=after, of=of, seconds=seconds))

    def now(self, name: str, *, seconds: float | None = None) -> int:
        """Make a fault strike every living session at once; return how many were struck.

        Raises:
            UnknownFaultError: If there is no fault of that name, or it can only happen at the door.
        """
        if name in DOOR:
            raise UnknownFaultError(f"fault {name!r} happens at the door; living sessions are past it")
        struck = list(self._living)
        for strike in struck:
            strike(fault(name, after=0, of="", seconds=seconds))
        return len(struck)

    def clear(self) -> None:
        """Forget all orders; living sessions keep what they have."""
        self._always.clear()
        self._next.clear()

    def take(self, from_query: Sequence[Fault] = ()) -> SessionFaults:
        """Return the faults of a connection that arrives now."""
        queued = self._next.popleft() if self._next else []
        return SessionFaults([*from_query, *queued, *self._always])

    def enlist(self, strike: Callable[[Fault], None]) -> Callable[[], None]:
        """Count a session among the living; call what is returned when it ends."""
        self._living.add(strike)
        return lambda: self._living.discard(strike)
