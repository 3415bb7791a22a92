"""Whose token signs what Twilio sends about a call: the master account's, or a subaccount's out of the Vault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from core.calls import is_number
from services.store import Store
from services.telephony import Accounts


@dataclass(frozen=True, slots=True)
class Signer:
    """An account that may speak about a call.

    Attributes:
        secret_id: Vault id of its token; None for the master account.
    """

    account_sid: str
    token: str = field(repr=False)
    secret_id: str | None = field(default=None, repr=False)


async def signer_of(
    store: Store, accounts: Accounts, account_sid: str, *, call_sid: str, numbers: Sequence[str] = ()
) -> Signer | None:
    """Return who must have signed; None when no token of that account is known.

    The master account costs no look-up. A subaccount is known by the call if it was announced, else by one of its
    numbers. A call or number that belongs to another account says nothing: its owner must not speak for others.

    Args:
        account_sid: As Twilio names it; believe it only after the signature has been checked.
        numbers: Both parties of the call, as the request names them.

    Raises:
        StoreError: If the database failed.
        SecretUnavailable: If the Vault failed.
    """
    secret_id = None
    if not accounts.is_master(account_sid):
        secret_id = await _secret_id(store, account_sid, call_sid, numbers)
    token = await accounts.token_for(account_sid, secret_id)
    return None if token is None else Signer(account_sid, token, secret_id)


async def _secret_id(store: Store, account_sid: str, call_sid: str, numbers: Sequence[str]) -> str | None:
    stored = await store.call(call_sid)
    parties = list(numbers)
    if stored is not None:
        if stored.call.account_sid in {None, account_sid} and stored.call.auth_token_secret_id is not None:
            return stored.call.auth_token_secret_id
        parties += [party for party in (stored.call.to_number, stored.call.from_number) if party is not None]
    for party in dict.fromkeys(parties):
        number = await store.number(party) if is_number(party) else None
        if number is not None and number.account_sid in {None, account_sid} and number.auth_token_secret_id:
            return number.auth_token_secret_id
    return None
