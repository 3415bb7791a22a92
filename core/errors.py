"""The error tree, which is also the table of close codes and end reasons.

    GatewayError                  raised when a session must end
    ├── ClientSide                the client broke a rule or asked for what it may not have
    │   ├── BadRequest            4000: a parameter is missing or malformed
    │   ├── Unauthorized          4001: the token is invalid, expired, revoked or of the wrong role
    │   ├── AgentNotFound         4004: no such agent for this user
    │   ├── ConversationNotFound  4004: no such conversation for this user
    │   ├── RepeatedViolations    4009: the client went on sending what is refused
    │   ├── MessageTooBig         1009: a message over the frame limit
    │   ├── TooManySessions       4029: the user's session limit
    │   └── BudgetExhausted       4029: the user's budget for today
    ├── Limit                     an agreed end came
    │   ├── TimeLimit             4008: the longest session
    │   ├── IdleTimeout           4008: nobody spoke
    │   ├── AtCapacity            1013: MAX_CONNECTIONS
    │   └── Draining              1012: the server restarts
    ├── UpstreamSide
    │   └── UpstreamUnavailable   4502: the Realtime API refused or stayed away after the retries
    └── ServerSide
        ├── KeyMissing            1011: no API key could be had
        └── InternalError         1011: our fault

`handlers/base.py` is the one place that turns an error into an event, a close code, an end reason and a log line.
Documentation, metrics, the stored `end_reason` and the tests read `ENDINGS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

Side = Literal["client", "upstream", "server", "limit"]


@dataclass(frozen=True, slots=True)
class Ending:
    """One row of the table of ends.

    Attributes:
        code: WebSocket close code (RFC 6455, section 7.4; 4000-4999 are private use).
        reason: Close reason text, at most 123 bytes as RFC 6455 section 5.5 has it; empty for a normal end.
        end_reason: Stored with the conversation and counted in the metrics.
        side: Who caused it.
        message: Sentence for the client's `error` event: what happened and what to do.
    """

    code: int
    reason: str
    end_reason: str
    side: Side
    message: str

    @property
    def is_normal(self) -> bool:
        """True when no `error` event precedes the close."""
        return self.code in {1000, 1001}


CLIENT_LEFT = Ending(1000, "", "client_left", "client", "")
PAGE_CLOSED = Ending(1001, "", "client_left", "client", "")
AGENT_ENDED = Ending(1000, "", "agent_ended", "server", "")
OPERATOR_ENDED = Ending(1000, "", "agent_ended", "server", "")
"""Told and counted as `AGENT_ENDED`; another object because nobody has said goodbye yet, so a caller must hear why."""


class GatewayError(Exception):
    """Raised when a session must end; `detail` is for the log and holds nothing personal."""

    ending: ClassVar[Ending]
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, public: str | None = None) -> None:
        super().__init__(detail or type(self).__name__)
        self.detail = detail
        self.public = public

    @property
    def message(self) -> str:
        """The sentence shown to the client."""
        return self.public or self.ending.message


class ClientSide(GatewayError):
    """The client broke a rule or asked for what it may not have."""


class BadRequest(ClientSide):
    """Raised when a parameter is missing or malformed."""

    ending = Ending(
        4000,
        "Missing token or agent_id",
        "bad_request",
        "client",
        "The address must carry token and agent_id, and ids must be UUIDs.",
    )


class Unauthorized(ClientSide):
    """Raised when the token is invalid, expired, revoked or of the wrong role."""

    ending = Ending(
        4001,
        "Unauthorized",
        "unauthorized",
        "client",
        "The token was not accepted. Sign in again and connect with the new token.",
    )


class AgentNotFound(ClientSide):
    """Raised when the agent does not exist, is switched off or belongs to somebody else."""

    ending = Ending(
        4004, "Agent not found", "not_found", "client", "No agent with this agent_id belongs to the signed-in user."
    )


class ConversationNotFound(ClientSide):
    """Raised when the conversation does not exist or belongs to somebody else."""

    ending = Ending(
        4004,
        "Conversation not found",
        "not_found",
        "client",
        "No conversation with this conversation_id belongs to the signed-in user. Leave it out to begin a new one.",
    )


class RepeatedViolations(ClientSide):
    """Raised when a client goes on sending what is refused."""

    ending = Ending(
        4009,
        "Invalid message",
        "client_error",
        "client",
        "Too many refused messages. Read the error events before this one, mend the client and connect again.",
    )


class MessageTooBig(ClientSide):
    """Raised when one message is over the frame limit."""

    ending = Ending(
        1009,
        "Message too big",
        "client_error",
        "client",
        "The message is over the frame limit of 1 MiB. Send audio in pieces of 20 to 100 ms.",
    )


class TooManySessions(ClientSide):
    """Raised when the user already has MAX_SESSIONS_PER_USER live sessions."""

    ending = Ending(
        4029,
        "Too many sessions",
        "too_many",
        "client",
        "This user has too many live sessions. Close one and connect again.",
    )


class BudgetExhausted(ClientSide):
    """Raised when the user's budget for today is spent."""

    ending = Ending(
        4029, "Budget exhausted", "budget", "client", "The budget for today is spent. It begins anew at midnight UTC."
    )


class Limit(GatewayError):
    """An agreed end came."""


class TimeLimit(Limit):
    """Raised when a session reaches CONNECTION_TIMEOUT or the agent's own limit."""

    ending = Ending(
        4008,
        "Session time limit",
        "time_limit",
        "limit",
        "The longest session time is over. Connect again with the conversation_id to go on.",
    )


class IdleTimeout(Limit):
    """Raised when neither speech nor a client event came for IDLE_TIMEOUT."""

    ending = Ending(
        4008,
        "Idle timeout",
        "idle",
        "limit",
        "Nobody spoke for a while. Connect again with the conversation_id to go on.",
    )


class AtCapacity(Limit):
    """Raised when MAX_CONNECTIONS sessions are live."""

    ending = Ending(1013, "Server at capacity", "capacity", "limit", "All lines are busy. Try again in a few seconds.")
    retryable = True


class Draining(Limit):
    """Raised when the server stops and the drain deadline has passed, or a session is asked for while it drains."""

    ending = Ending(
        1012,
        "Server restarting, please reconnect",
        "drain",
        "limit",
        "The server is restarting. Connect again with the conversation_id to go on.",
    )
    retryable = True


class UpstreamSide(GatewayError):
    """The Realtime API is the cause."""


class UpstreamUnavailable(UpstreamSide):
    """Raised when the Realtime API refused the session or stayed away after the retries."""

    ending = Ending(
        4502,
        "Voice service unavailable",
        "upstream",
        "upstream",
        "The voice service cannot be reached at the moment. Try again in a minute.",
    )
    retryable = True


class ServerSide(GatewayError):
    """Our own cause."""


class KeyMissing(ServerSide):
    """Raised when no API key could be had; the log and `./voice doctor` say which step is missing."""

    ending = Ending(
        1011,
        "OpenAI API key not configured",
        "key_missing",
        "server",
        "The server has no key for the voice service. Its operator can run ./voice doctor to see why.",
    )


class InternalError(ServerSide):
    """Raised when something of ours failed."""

    ending = Ending(
        1011,
        "Internal server error",
        "internal",
        "server",
        "Something failed on the server. Try again; if it happens again, tell the operator the time.",
    )
    retryable = True


ERRORS: tuple[type[GatewayError], ...] = (
    MessageTooBig,
    KeyMissing,
    InternalError,
    Draining,
    AtCapacity,
    BadRequest,
    Unauthorized,
    AgentNotFound,
    ConversationNotFound,
    TimeLimit,
    IdleTimeout,
    RepeatedViolations,
    TooManySessions,
    BudgetExhausted,
    UpstreamUnavailable,
)

ENDINGS: tuple[Ending, ...] = (CLIENT_LEFT, PAGE_CLOSED, AGENT_ENDED, *(error.ending for error in ERRORS))
