"""Twilio's REST API, as far as a call needs it: hang up, go on with other TwiML; and whose token is whose.

One form POST each, so Twilio's own client, with an HTTP library of its own, is not needed.
Source: Twilio reference, sections 2.6 and 2.7.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx

DEFAULT_BASE = "https://api.twilio.com"

DEADLINE_S = 5.0
"""Longest time of one request; an update takes 0.1 to 0.5 s."""

RETRY_AFTER_S = (0.2, 0.5)
"""Pause before the one second try; random, so that calls that ended together do not come back together."""

MAX_ANSWER_BYTES = 65_536
"""A call's description has about 2 KB."""

CALL_NOT_FOUND = 20404
NOT_IN_PROGRESS = 21220
"""Twilio's error codes of a call that is over: the caller hung up while we did."""

FRESH_S = 300.0
"""How long a subaccount's token is used without asking again: a new one works five minutes later at most."""

FAILURE_PAUSE_S = 2.0
"""After a failure the Vault is asked again this much later; callers in between get the same answer."""

MAX_TOKENS = 1_000
"""Tokens kept at a time, some 200 bytes each; the longest unused goes first."""

_TOKEN = re.compile(r"[\x21-\x7e]{1,512}")
"""What fits into a header and into a key of HMAC; Twilio's have 32 hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account that owns calls, and the credentials that may change them.

    Attributes:
        account_sid: Owner of the call; stands in the address.
        auth_token: The account's own; empty when it is not known.
        rest_sid, rest_token: Credentials of the parent account, for a subaccount whose own token is not known.
    """

    account_sid: str
    auth_token: str = field(default="", repr=False)
    rest_sid: str = ""
    rest_token: str = field(default="", repr=False)

    @property
    def credentials(self) -> tuple[str, str]:
        """User and password of basic authentication."""
        if self.auth_token:
            return self.account_sid, self.auth_token
        return self.rest_sid, self.rest_token


class Accounts:
    """Who signs and who may hang up: the master account of the settings, subaccounts by the Vault ids of their tokens.

    Args:
        account_sid: Master account; None: its token is used for every account that has none in the Vault.
        auth_token: The master account's token; None: there is none.
        secret: Returns the secret of a Vault id; what it raises, the methods here raise. None: there is no Vault.
    """

    def __init__(
        self,
        account_sid: str | None,
        auth_token: str | None,
        *,
        secret: Callable[[str], Awaitable[str]] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sid, self._token = account_sid, auth_token
        self._secret = secret
        self._monotonic = monotonic
        self._tokens: OrderedDict[str, tuple[asyncio.Task[str], float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Accounts({self._sid!r}, {len(self._tokens)} subaccount tokens)"

    def is_master(self, account_sid: str | None) -> bool:
        """Return whether the settings hold this account's token, so that nothing need be looked up."""
        return self._token is not None and self._sid is not None and account_sid == self._sid

    async def token_for(self, account_sid: str | None, secret_id: str | None) -> str | None:
        """Return the token that signs for an account; None when there is none.

        Args:
            account_sid: As Twilio names it in `AccountSid` or `start.accountSid`.
            secret_id: Vault id that the number or the call gives; of no account but the one that owns them.

        Raises:
            Exception: What `secret` raises, for two seconds the same again.
        """
        if self.is_master(account_sid):
            return self._token
        if secret_id is not None:
            token = await self._from_vault(secret_id)
            return token if _TOKEN.fullmatch(token) else None
        return self._token if account_sid is None or self._sid is None else None

    async def account(self, account_sid: str, secret_id: str | None) -> Account | None:
        """Return the account with credentials for REST: its own token, else its parent's; None when there is neither.

        Raises:
            Exception: What `secret` raises.
        """
        token = await self.token_for(account_sid, secret_id)
        if token is not None:
            return Account(account_sid, token)
        if self._sid is None or self._token is None:
            return None
        return Account(account_sid, rest_sid=self._sid, rest_token=self._token)

    async def _from_vault(self, secret_id: str) -> str:
        """Return a secret, from memory for five minutes; one question for each id runs at a time."""
        if self._secret is None:
            return ""
        found = self._tokens.get(secret_id)
        if found is None or self._is_old(*found):
            task = asyncio.create_task(_asked(self._secret, secret_id), name="telephony: fetch token")
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._tokens[secret_id] = found = (task, self._monotonic())
        self._tokens.move_to_end(secret_id)
        while len(self._tokens) > MAX_TOKENS:
            self._tokens.popitem(last=False)
        return await asyncio.shield(found[0])

    def _is_old(self, task: asyncio.Task[str], began_at: float) -> bool:
        if not task.done():
            return False
        failed = task.cancelled() or task.exception() is not None
        return self._monotonic() - began_at >= (FAILURE_PAUSE_S if failed else FRESH_S)


async def _asked(secret: Callable[[str], Awaitable[str]], secret_id: str) -> str:
    return await secret(secret_id)


class Telephony:
    """What can be done to a live call from outside its stream.

    Args:
        client: Plain HTTP client; closed by whoever made it.
        base_url: Address of the REST API, without a path.
        on_failure: Told the cause (`HTTP 401 code 20003`, `ConnectError`) of each request that had no effect.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        base_url: str = DEFAULT_BASE,
        on_failure: Callable[[str], None] | None = None,
    ) -> None:
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._on_failure = on_failure or (lambda cause: None)

    async def hang_up(self, account: Account, call_sid: str) -> bool:
        """End a call; true as well when it was over already. Returns within 11 s."""
        return await self._update(account, call_sid, {"Status": "completed"})

    async def redirect(self, account: Account, call_sid: str, twiml: str) -> bool:
        """Let a call go on with other TwiML, at most 4000 characters; Twilio then ends its stream.

        True as well when the call was over already: nobody is left on the line. Returns within 11 s.
        """
        return await self._update(account, call_sid, {"Twiml": twiml})

    async def _update(self, account: Account, call_sid: str, form: dict[str, str]) -> bool:
        """Send the update; once more when it may have been Twilio's bad moment."""
        cause, may_retry = await self._send(account, call_sid, form)
        if cause and may_retry:
            await asyncio.sleep(random.uniform(*RETRY_AFTER_S))  # noqa: S311 - nobody gains by guessing it
            cause, _ = await self._send(account, call_sid, form)
        if cause:
            self._on_failure(cause)
        return not cause

    async def _send(self, account: Account, call_sid: str, form: dict[str, str]) -> tuple[str, bool]:
        """Return what went wrong, empty when nothing did, and whether a second try makes sense."""
        path = f"/2010-04-01/Accounts/{quote(account.account_sid, safe='')}/Calls/{quote(call_sid, safe='')}.json"
        try:
            async with asyncio.timeout(DEADLINE_S):
                request = self._client.build_request("POST", self._base_url + path, data=form, timeout=DEADLINE_S)
                response = await self._client.send(
                    request, auth=httpx.BasicAuth(*account.credentials), stream=True, follow_redirects=False
                )
                try:
                    code = _code(await _read(response))
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError, ValueError) as error:
            return type(error).__name__, not isinstance(error, (httpx.InvalidURL, ValueError))
        if response.is_success or code in {CALL_NOT_FOUND, NOT_IN_PROGRESS}:
            return "", False
        cause = f"HTTP {response.status_code}" + (f" code {code}" if code else "")
        return cause, response.status_code == 429 or response.status_code >= 500


async def _read(response: httpx.Response) -> bytes:
    """Return the beginning of an answer, of which only the error code is of interest."""
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            break
    return bytes(body)


def _code(body: bytes) -> int:
    """Return Twilio's error code; 0 when the answer has none."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return 0
    code = answer.get("code") if isinstance(answer, dict) else None
    return code if isinstance(code, int) else 0
