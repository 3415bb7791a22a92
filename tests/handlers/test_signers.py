"""Whose token is asked for: the master's without a look-up, a subaccount's by its call or by its number."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.calls import Call, PhoneNumber, StoredCall
from handlers.signers import Signer, signer_of
from services.telephony import Accounts

MASTER, SUB, OTHER = "AC" + "1" * 32, "AC" + "2" * 32, "AC" + "3" * 32
CALL = "CA" + "4" * 32
NUMBER, SECOND = "+14155550100", "+14155550122"


class Rows:
    """The two look-ups of a store, from dictionaries; notes what was looked up."""

    def __init__(self, *rows: Call | PhoneNumber) -> None:
        self.calls = {row.call_sid: row for row in rows if isinstance(row, Call)}
        self.numbers = {row.number: row for row in rows if isinstance(row, PhoneNumber)}
        self.looked_up: list[str] = []

    async def call(self, call_sid: str) -> StoredCall | None:
        self.looked_up.append(call_sid)
        call = self.calls.get(call_sid)
        return None if call is None else StoredCall(call, "", "")

    async def number(self, number: str) -> PhoneNumber | None:
        self.looked_up.append(number)
        return self.numbers.get(number)


async def secret(secret_id: str) -> str:
    """Return the token of a Vault id."""
    return f"token-of-{secret_id}"


def signer(rows: Rows, account_sid: str, *numbers: str, accounts: Accounts | None = None) -> Signer | None:
    """Ask for the signer of a request about the call."""
    chosen: Any = rows
    known = accounts or Accounts(MASTER, "master-token", secret=secret)
    return asyncio.run(signer_of(chosen, known, account_sid, call_sid=CALL, numbers=numbers))


def number_of(account_sid: str | None, secret_id: str | None, number: str = NUMBER) -> PhoneNumber:
    return PhoneNumber(number, "agent", "user", account_sid, secret_id)


def call_of(account_sid: str | None, secret_id: str | None, to_number: str | None = None) -> Call:
    return Call(CALL, "agent", "user", account_sid, None, to_number, auth_token_secret_id=secret_id)


def test_master_account_costs_no_look_up() -> None:
    """Its token is in the settings, whatever the rows say."""
    rows = Rows(call_of(MASTER, "id"), number_of(MASTER, "id"))
    assert signer(rows, MASTER, NUMBER) == Signer(MASTER, "master-token")
    assert rows.looked_up == []


@pytest.mark.parametrize(
    ("rows", "numbers"),
    [
        ((call_of(SUB, "id"),), ()),
        ((call_of(None, "id"),), ()),
        ((number_of(SUB, "id"),), (NUMBER, SECOND)),
        ((number_of(None, "id"),), (SECOND, NUMBER)),
        ((call_of(SUB, None, NUMBER), number_of(SUB, "id")), ()),
        ((call_of(SUB, "id"), number_of(SUB, "another id")), (NUMBER,)),
        ((call_of(OTHER, "foreign id"), number_of(SUB, "id")), (NUMBER,)),
        ((number_of(OTHER, "foreign id", SECOND), number_of(SUB, "id")), (SECOND, NUMBER)),
    ],
)
def test_subaccount_is_found_by_its_call_or_number(rows: tuple[Any, ...], numbers: tuple[str, ...]) -> None:
    """The call's own token comes first, then that of a number; rows of other accounts are passed over."""
    assert signer(Rows(*rows), SUB, *numbers) == Signer(SUB, "token-of-id", "id")


@pytest.mark.parametrize(
    "rows",
    [
        (),
        (number_of(SUB, None),),
        (call_of(SUB, None),),
        (call_of(OTHER, "foreign id"),),
        (number_of(OTHER, "foreign id"),),
        (call_of(OTHER, "foreign id", NUMBER), number_of(OTHER, "foreign id")),
    ],
)
def test_account_without_a_token_has_no_signer(rows: tuple[Any, ...]) -> None:
    """Nobody signs for an account whose token is not known, least of all another account."""
    assert signer(Rows(*rows), SUB, NUMBER) is None


def test_what_is_no_number_is_not_looked_up() -> None:
    """Callers without a number and SIP addresses are in no table."""
    rows = Rows()
    assert signer(rows, SUB, "anonymous", "", "sip:a@example.com", NUMBER, NUMBER) is None
    assert rows.looked_up == [CALL, NUMBER]


def test_token_without_a_named_master_serves_every_account() -> None:
    """With only TWILIO_AUTH_TOKEN set, an account with no token of its own is that one."""
    accounts = Accounts(None, "only-token", secret=secret)
    assert signer(Rows(), SUB, NUMBER, accounts=accounts) == Signer(SUB, "only-token")
    with_own = signer(Rows(number_of(SUB, "id")), SUB, NUMBER, accounts=accounts)
    assert with_own == Signer(SUB, "token-of-id", "id")


def test_no_token_is_in_the_repr() -> None:
    """Printing a signer shows neither token nor Vault id."""
    assert "master-token" not in repr(signer(Rows(), MASTER))
    assert "id" not in repr(Signer(SUB, "t", "vault-id")).replace("account_sid", "")
