"""The table of ends is the contract's."""

from __future__ import annotations

import pytest

from core import errors
from core.errors import ENDINGS, ERRORS, GatewayError

CONTRACT = {
    (1000, "", "client_left"),
    (1000, "", "agent_ended"),
    (1001, "", "client_left"),
    (1009, "Message too big", "client_error"),
    (1011, "OpenAI API key not configured", "key_missing"),
    (1011, "Internal server error", "internal"),
    (1012, "Server restarting, please reconnect", "drain"),
    (1013, "Server at capacity", "capacity"),
    (4000, "Missing token or agent_id", "bad_request"),
    (4001, "Unauthorized", "unauthorized"),
    (4004, "Agent not found", "not_found"),
    (4004, "Conversation not found", "not_found"),
    (4008, "Session time limit", "time_limit"),
    (4008, "Idle timeout", "idle"),
    (4009, "Invalid message", "client_error"),
    (4029, "Too many sessions", "too_many"),
    (4029, "Budget exhausted", "budget"),
    (4502, "Voice service unavailable", "upstream"),
}
"""Contract, section 4, row by row."""


def test_the_table_is_the_contracts() -> None:
    """Codes, reasons and stored end reasons are exactly those of the contract, each once."""
    assert {(e.code, e.reason, e.end_reason) for e in ENDINGS} == CONTRACT
    assert len(ENDINGS) == len(CONTRACT)


@pytest.mark.parametrize("error", ERRORS)
def test_every_end_that_is_not_normal_says_what_to_do(error: type[GatewayError]) -> None:
    """An abnormal end has a reason that fits a close frame, a sentence for the client and a side."""
    ending = error.ending
    assert not ending.is_normal
    assert 0 < len(ending.reason.encode()) <= 123
    assert ending.message.endswith(".")
    assert ending.side in {"client", "upstream", "server", "limit"}


@pytest.mark.parametrize("ending", [errors.CLIENT_LEFT, errors.PAGE_CLOSED, errors.AGENT_ENDED, errors.OPERATOR_ENDED])
def test_normal_ends_are_silent(ending: errors.Ending) -> None:
    """No error event precedes a normal close."""
    assert ending.is_normal
    assert not ending.reason
    assert not ending.message


def test_every_error_is_in_the_tree_and_in_the_table() -> None:
    """Each class with an ending is under one of the four sides, and none is missing from the table."""
    sides = (errors.ClientSide, errors.Limit, errors.UpstreamSide, errors.ServerSide)
    leaves = [leaf for side in sides for leaf in side.__subclasses__()]
    assert set(leaves) == set(ERRORS)


def test_the_detail_is_for_the_log_and_the_sentence_for_the_client() -> None:
    """What the log tells never reaches the client; a public sentence takes the place of the usual one."""
    assert errors.Unauthorized("expired").message == errors.Unauthorized.ending.message
    assert errors.Unauthorized("expired").detail == "expired"
    assert errors.BadRequest(public="agent_id must be a UUID.").message == "agent_id must be a UUID."
    assert str(errors.BadRequest()) == "BadRequest"


def test_only_passing_troubles_invite_a_retry() -> None:
    """A client may try again when the server restarts, is full or broken, or the voice service is away."""
    assert {error for error in ERRORS if error.retryable} == {
        errors.AtCapacity,
        errors.Draining,
        errors.UpstreamUnavailable,
        errors.InternalError,
    }
