"""Forms that Twilio posts about a call, and whether it was Twilio.

Every request is checked against the configured public name, never against what it claims of itself; there is no switch
that turns the check off. Source: Twilio reference, sections 2.7 and 3.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from tornado.web import RequestHandler

from core.calls import is_account_sid, is_call_sid
from core.twilio import signature_matches
from core.twiml import http_base
from handlers.context import Context
from handlers.signers import Signer, signer_of

MAX_BODY_BYTES = 65_536
"""A request about a call has about 1 KB."""

MAX_FIELDS = 200
"""A request about a call has some thirty fields, and their number grows without notice."""


class TwilioForm(RequestHandler):
    """A form that Twilio posts and signs."""

    def initialize(self, context: Context) -> None:
        self.context = context
        self.accounts = context.accounts

    def set_default_headers(self) -> None:
        """Keep answers out of caches."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Type", "text/plain; charset=utf-8")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with the reason alone."""
        self.finish(self._reason)

    async def signed_form(self) -> tuple[dict[str, str], Signer] | None:
        """Return the form and who signed it; None after the refusal has been written.

        Raises:
            StoreError: If the database failed, so that nobody's signature could be checked.
            SecretUnavailable: The same of the Vault.
        """
        fields = self._fields()
        form = dict(fields)
        account_sid, call_sid = form.get("AccountSid", ""), form.get("CallSid", "")
        if not (is_account_sid(account_sid) and is_call_sid(call_sid)):
            self._refuse(400, "not a request about a call", "malformed")
            return None
        public_url = self.context.settings.public_url
        if public_url is None:
            self._refuse(403, "PUBLIC_URL is not set, so no signature can be checked", "no PUBLIC_URL")
            return None
        numbers = [form.get(name, "") for name in ("To", "From")]
        signer = await signer_of(self.context.store, self.accounts, account_sid, call_sid=call_sid, numbers=numbers)
        headers = self.request.headers
        if signer is None or not signature_matches(
            http_base(public_url) + (self.request.uri or ""),
            fields,
            signer.token,
            given=headers.get("X-Twilio-Signature"),
            settings=headers.get("X-Twilio-Webhooks-Signature-Settings"),
        ):
            self._refuse(403, "the signature does not match", "unknown account" if signer is None else "signature")
            return None
        return form, signer

    def _fields(self) -> list[tuple[str, str]]:
        """Return the form's fields as they are signed; none when it is no form of Twilio's."""
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        body = self.request.body
        if kind != "application/x-www-form-urlencoded" or len(body) > MAX_BODY_BYTES:
            return []
        try:
            return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
        except ValueError:
            return []

    def _refuse(self, status: int, message: str, cause: str) -> None:
        self.context.metrics.refused(status)
        self.context.logger.warning("webhook refused", path=self.request.path, cause=cause)
        self.set_status(status)
        self.finish(message)
