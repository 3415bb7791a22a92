"""Calls as they are announced: what is taken, what is refused and how it is named, and how rows become records."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from core.calls import (
    BadCall,
    Call,
    PhoneNumber,
    StoredCall,
    call_columns,
    call_from_columns,
    call_from_config,
    is_account_sid,
    is_call_sid,
    is_number,
    iso,
    lifetime,
    moment,
    stored_call_from_columns,
    token_hash,
    unknown_fields,
)

SID = "CA" + "0a" * 16
AGENT_ID = "00000000-0000-4000-8000-00000000000A"
USER_ID = "00000000-0000-4000-8000-000000000001"
SECRET_ID = "00000000-0000-4000-8000-000000000002"
BODY = {"agent_id": AGENT_ID, "user_id": USER_ID}

START = "2026-11-20T12:00:00.000000+00:00"
LATER = "2026-11-20T12:05:00.000000+00:00"


def problems_of(**changes: Any) -> list[str]:
    """Return what is wrong with a body that differs from a good one by these fields."""
    with pytest.raises(BadCall) as caught:
        call_from_config(SID, BODY | changes)
    return caught.value.problems


def test_least_body_is_a_call() -> None:
    """Agent and user are enough; ids are taken in any case and kept in small letters."""
    assert call_from_config(SID, BODY) == Call(SID, AGENT_ID.lower(), USER_ID)


def test_whole_body_is_a_call() -> None:
    """Every field of the body is in the call."""
    body = BODY | {
        "call_sid": SID,
        "account_sid": "AC" + "1" * 32,
        "from_number": "anonymous",
        "to_number": "sip:desk@example.com",
        "config": {"voice": "cedar"},
        "auth_token_secret_id": SECRET_ID,
    }
    assert call_from_config(SID, body) == Call(
        SID,
        AGENT_ID.lower(),
        USER_ID,
        "AC" + "1" * 32,
        "anonymous",
        "sip:desk@example.com",
        {"voice": "cedar"},
        SECRET_ID,
    )


def test_nothing_personal_is_in_the_repr() -> None:
    """Numbers, configuration and Vault ids stay out of what a log could print."""
    call = Call(SID, AGENT_ID, USER_ID, None, "+14155550100", "+14155550199", {"name": "Ada"}, SECRET_ID)
    number = PhoneNumber("+14155550100", AGENT_ID, USER_ID, None, SECRET_ID)
    for private in ("+1415", "Ada", SECRET_ID):
        assert private not in f"{call!r} {number!r} {StoredCall(call, START, LATER)!r}"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"agent_id": None}, "agent_id"),
        ({"agent_id": "7"}, "agent_id"),
        ({"agent_id": [AGENT_ID]}, "agent_id"),
        ({"user_id": AGENT_ID + "0"}, "user_id"),
        ({"call_sid": "CA" + "9" * 32}, "call_sid"),
        ({"account_sid": "CA" + "1" * 32}, "account_sid"),
        ({"account_sid": 7}, "account_sid"),
        ({"auth_token_secret_id": "0123456789abcdef" * 2}, "auth_token_secret_id"),
        ({"from_number": 14155550100}, "from_number"),
        ({"to_number": "+1" * 200}, "to_number"),
        ({"to_number": "+1\n5"}, "to_number"),
        ({"config": ["voice"]}, "config"),
        ({"config": "{}"}, "config"),
    ],
)
def test_wrong_field_is_named_and_never_repeated(change: dict[str, Any], field: str) -> None:
    """A problem begins with the field's name and holds nothing of its value."""
    (problem,) = problems_of(**change)
    assert problem.startswith(f"{field} ")
    assert "0123456789abcdef" not in problem


def test_all_problems_are_named_at_once() -> None:
    """A body with three wrong fields has three problems, and the error's text names all of them."""
    with pytest.raises(BadCall, match="agent_id must be a UUID; user_id must be a UUID; config"):
        call_from_config(SID, {"config": 1})


@pytest.mark.parametrize("body", [None, [], "x", 1])
def test_body_that_is_no_object_is_refused(body: Any) -> None:
    """Only an object can be a call."""
    with pytest.raises(BadCall, match="JSON object"):
        call_from_config(SID, body)


def test_unknown_fields_are_named_without_what_could_be_content() -> None:
    """A misspelled field is named, cut short and without odd characters."""
    assert unknown_fields(BODY | {"call_sid": SID, "config": {}}) == []
    assert unknown_fields({"agentId": 1, "+1 415 555": 2, "x" * 99: 3}) == [
        "agentId is not a field of a call",
        "?1?415?555 is not a field of a call",
        "x" * 40 + " is not a field of a call",
    ]


def test_shapes_of_sids_and_numbers() -> None:
    """Sids are two letters and 32 small hexadecimal digits; numbers are E.164."""
    assert is_call_sid(SID)
    assert is_account_sid("AC" + "f" * 32)
    for text in ("", SID.lower(), SID + "0", SID[:-1], "CA" + "g" * 32, SID + "\n", "AC" + "0" * 32):
        assert not is_call_sid(text)
    assert is_number("+14155550100")
    for text in ("14155550100", "+0415", "+", "anonymous", "+1415555010012345", "+1415\n"):
        assert not is_number(text)


def test_token_hash_is_sha256_and_takes_any_text() -> None:
    """The hash is the published one of the UTF-8 text; a lone surrogate is no accident."""
    assert token_hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert len(token_hash("\ud800")) == 64


def test_moments_need_a_time_zone() -> None:
    """Times are compared as moments; one without a zone is a mistake."""
    assert moment("2026-11-20T13:00:00+01:00") == moment(START)
    assert iso(datetime(2026, 11, 20, 13, tzinfo=timezone(timedelta(hours=1)))) == START
    assert lifetime(datetime(2026, 11, 20, 12, tzinfo=UTC)) == (START, LATER)
    with pytest.raises(ValueError, match="time zone"):
        moment("2026-11-20T13:00:00")


def test_status_follows_the_row() -> None:
    """A call waits until it expires, lives when it is claimed, and is over when it ended."""
    call = Call(SID, AGENT_ID, USER_ID)
    assert StoredCall(call, START, LATER).status(START) == "waiting"
    assert StoredCall(call, START, LATER).status(LATER) == "expired"
    assert StoredCall(call, START, LATER, START).status("2027-01-01T00:00:00+00:00") == "live"
    assert StoredCall(call, START, LATER, START, LATER, "idle").status(START) == "ended"


ROW = {
    "call_sid": SID,
    "agent_id": AGENT_ID,
    "user_id": USER_ID,
    "account_sid": None,
    "from_number": None,
    "to_number": "+14155550100",
    "config": {"a": 1},
    "token_hash": "h",
    "created_at": START,
    "expires_at": LATER,
    "claimed_at": None,
    "ended_at": None,
    "end_reason": None,
}


@pytest.mark.parametrize(
    ("config", "read"),
    [({"a": 1}, {"a": 1}), (json.dumps({"a": 1}), {"a": 1}), (None, {}), ([1], [1])],
)
def test_row_becomes_a_call(config: Any, read: Any) -> None:
    """A configuration may be decoded or text; what is no object is left for `configured_agent` to name."""
    assert call_from_columns(ROW | {"config": config}).config == read


@pytest.mark.parametrize("text", ["2026-11-20 12:00:00+00", "2026-11-20T13:00:00.0+01:00", "2026-11-20T12:00:00Z"])
def test_times_of_rows_have_one_form(text: str) -> None:
    """Whatever a database writes, a record has UTC with microseconds."""
    stored = stored_call_from_columns(ROW | {"created_at": text, "claimed_at": datetime(2026, 11, 20, 12, tzinfo=UTC)})
    assert (stored.created_at, stored.expires_at, stored.claimed_at, stored.ended_at) == (START, LATER, START, None)


def test_columns_of_a_call_make_the_same_call() -> None:
    """What is written is what is read."""
    call = Call(SID, AGENT_ID, USER_ID, None, None, "+14155550100", {"a": 1}, SECRET_ID)
    assert call_from_columns(ROW | call_columns(call)) == call
