"""What a lost link to the Realtime API means: try again, ask for the key anew, or give up."""

from __future__ import annotations

from dataclasses import dataclass

from core.realtime import BAD_KEY_CODES, FATAL_CODES

RETRY_DELAYS_S = (0.4, 1.0, 2.0, 4.0)
"""Waits before each further try. With the 8 s handshake limit that is under 40 s of silence at the very worst, about as
long as a person waits for an answer before hanging up."""

STABLE_S = 30.0
"""A link that lived this long has earned a fresh set of tries."""

ROTATE_BEFORE_S = 300.0
"""How long before the session's limit a new one is opened at the next pause (reference, section 13, P12)."""

SESSION_LIMIT_S = 3600.0
"""Session limit when the API names none. Source: OpenAI Realtime reference, section 9.4."""

FATAL_STATUS = frozenset({400, 403, 404, 405, 410, 426})
"""HTTP answers to the handshake that no retry mends; 401 is handled by asking for the key anew."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a link is gone.

    Attributes:
        cause: `refused` (the handshake was answered with another status), `closed`, `timeout`, `unreachable`,
            `stalled`, `error` (an error event no session survives) or `rotated` (closed by us before the session's
            limit).
        code: Error code when one is known, such as `invalid_api_key`.
        status: HTTP status of a refused handshake, or the WebSocket close code.
        retry_after_s: What the service asked for with a 429.
    """

    cause: str
    code: str = ""
    status: int | None = None
    retry_after_s: float | None = None

    @property
    def is_bad_key(self) -> bool:
        """True when a fresh key may mend it."""
        return self.code in BAD_KEY_CODES or (self.cause == "refused" and self.status == 401)

    @property
    def is_fatal(self) -> bool:
        """True when trying again cannot help."""
        return self.code in FATAL_CODES or (self.cause == "refused" and self.status in FATAL_STATUS)

    @property
    def is_planned(self) -> bool:
        """True when the session had reached its end and a new one may follow at once."""
        return self.cause == "rotated" or self.code == "session_expired"


def rotation_at(limit_at: float | None, now: float) -> float:
    """Return when a fresh session should take over from one that begins now.

    Args:
        limit_at: When the API will end the session, in seconds of the clock of `now`; None when it does not say. A time
            in the past, or further off than two usual limits, means that one of the two clocks is wrong.
        now: Monotonic time in seconds.
    """
    if limit_at is None or not now < limit_at <= now + 2 * SESSION_LIMIT_S:
        limit_at = now + SESSION_LIMIT_S
    return max(limit_at - ROTATE_BEFORE_S, now + STABLE_S)


class Retries:
    """Counts tries and says when the next one is due."""

    __slots__ = ("_key_refreshed", "_tries")

    def __init__(self) -> None:
        self._tries = 0
        self._key_refreshed = False

    def stable(self) -> None:
        """Take note that the link lived long enough; the count begins anew."""
        self._tries = 0
        self._key_refreshed = False

    def next(self, loss: Loss) -> tuple[float, bool] | None:
        """Return the wait in seconds and whether to ask for the key anew; None to give up."""
        if loss.is_planned and self._tries == 0:
            self._tries += 1
            return 0.0, False
        if loss.is_bad_key:
            if self._key_refreshed:
                return None
            self._key_refreshed = True
            return 0.0, True
        if loss.is_fatal or self._tries >= len(RETRY_DELAYS_S):
            return None
        delay = RETRY_DELAYS_S[self._tries]
        self._tries += 1
        return max(delay, min(loss.retry_after_s or 0.0, RETRY_DELAYS_S[-1])), False
