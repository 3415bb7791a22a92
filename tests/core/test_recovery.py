"""What a lost link means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.realtime import FATAL_CODES
from core.recovery import FATAL_STATUS, RETRY_DELAYS_S, SESSION_LIMIT_S, STABLE_S, Loss, Retries, rotation_at


@pytest.mark.parametrize("cause", ["refused", "closed", "timeout", "unreachable", "stalled", "error"])
def test_a_passing_trouble_is_tried_again_with_growing_waits(cause: str) -> None:
    """Any loss without a known reason is retried four times, then given up."""
    retries = Retries()
    waits = [retries.next(Loss(cause)) for _ in range(5)]
    assert waits == [*((delay, False) for delay in RETRY_DELAYS_S), None]


def test_a_link_that_lived_long_earns_fresh_tries() -> None:
    """A conversation is not given up for troubles that lie far apart."""
    retries = Retries()
    for _ in RETRY_DELAYS_S:
        retries.next(Loss("closed"))
    retries.next(Loss("error", code="invalid_api_key"))
    retries.stable()
    assert retries.next(Loss("closed")) == (RETRY_DELAYS_S[0], False)
    assert retries.next(Loss("error", code="invalid_api_key")) == (0.0, True)


@pytest.mark.parametrize("code", sorted(FATAL_CODES - {"invalid_api_key", "insufficient_permissions"}))
def test_no_retry_mends_billing_and_models(code: str) -> None:
    """A quota, an account or a model that is not there is given up at once, whatever the cause."""
    assert Retries().next(Loss("closed", code=code)) is None


@pytest.mark.parametrize("status", sorted(FATAL_STATUS))
def test_a_handshake_refused_for_good_is_not_repeated(status: int) -> None:
    """A 4xx that will not change is given up; the same number as a close code means nothing."""
    assert Retries().next(Loss("refused", status=status)) is None
    assert Retries().next(Loss("closed", status=status)) is not None


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_busy_service_is_asked_again(status: int) -> None:
    """A handshake refused for now is repeated."""
    assert Retries().next(Loss("refused", status=status)) == (RETRY_DELAYS_S[0], False)


@pytest.mark.parametrize(
    "loss",
    [
        Loss("error", code="invalid_api_key"),
        Loss("closed", code="insufficient_permissions", status=3000),
        Loss("refused", status=401),
    ],
)
def test_a_bad_key_is_asked_for_anew_once(loss: Loss) -> None:
    """The key may have been rotated; a fresh one that is bad too ends it."""
    retries = Retries()
    assert retries.next(loss) == (0.0, True)
    assert retries.next(loss) is None


def test_a_planned_change_of_sessions_waits_for_nothing() -> None:
    """A session that reached its limit is followed at once; one that ends again and again is slowed down."""
    for loss in (Loss("rotated"), Loss("error", code="session_expired")):
        retries = Retries()
        assert retries.next(loss) == (0.0, False)
        assert retries.next(loss) == (RETRY_DELAYS_S[1], False)


@pytest.mark.parametrize(("asked", "waited"), [(None, 0.4), (0.1, 0.4), (3.0, 3.0), (3600.0, 4.0)])
def test_the_wait_the_service_asks_for_is_kept_within_reason(asked: float | None, waited: float) -> None:
    """Retry-After lengthens the wait, up to what a person waits for."""
    assert Retries().next(Loss("refused", status=429, retry_after_s=asked)) == (waited, False)


def test_a_session_is_changed_before_its_limit() -> None:
    """Five minutes before the end that the API named, or that it is known for."""
    assert rotation_at(1000.0 + 3600, 1000.0) == 1000.0 + 3300
    assert rotation_at(None, 1000.0) == 1000.0 + SESSION_LIMIT_S - 300


@pytest.mark.parametrize("limit_at", [-5.0, 1000.0, 1e9, float("nan"), float("inf")])
def test_a_limit_that_cannot_be_true_is_not_believed(limit_at: float) -> None:
    """A server whose clock is wrong does not change sessions without end."""
    assert rotation_at(limit_at, 1000.0) == 1000.0 + SESSION_LIMIT_S - 300


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_session_lives_for_a_while_whatever_its_limit(limit_at: float) -> None:
    """Even a session with a very short limit is not left before it was stable."""
    assert STABLE_S <= rotation_at(limit_at, 1000.0) - 1000.0 <= 2 * SESSION_LIMIT_S
