"""Fetching TwiML as Twilio does: what is taken for a document, and the error every other answer is."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urljoin

from simulator import twiml
from simulator.twilio_record import CallRecord
from simulator.twilio_webhooks import Webhooks

# More documents than any call has; beyond, redirects go in a circle.
MAX_DOCUMENTS = 50
_XML = ("text/xml", "application/xml", "text/html")


class DocumentFailed(Exception):
    """Raised when there is no document to go on with; `code` is Twilio's error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Documents:
    """The documents of one call, in order; relative addresses are taken from the last one fetched."""

    def __init__(self, record: CallRecord, webhooks: Webhooks) -> None:
        """Begin without a document."""
        self._record, self._webhooks = record, webhooks
        self._url = ""

    def absolute(self, url: str) -> str:
        """Return an address of the last document as an absolute one."""
        return urljoin(self._url, url)

    async def fetch(
        self, kind: str, url: str, *, method: str, extra: Mapping[str, str] | None = None
    ) -> Sequence[twiml.Verb]:
        """Return the verbs of a document.

        Raises:
            DocumentFailed: If the application gives none.
        """
        self._url = self.absolute(url)
        answer = await self._webhooks.request(kind, self._url, method=method, extra=extra)
        if not 200 <= answer.status < 300:
            raise DocumentFailed(11200, f"HTTP {answer.status}" if answer.status else "no answer")
        text = answer.body.decode("utf-8", "replace")
        content_type = answer.content_type.partition(";")[0].strip().lower()
        if content_type == "text/plain":
            return [twiml.Say(text)]
        if content_type not in _XML:
            raise DocumentFailed(12300, content_type or "no Content-Type")
        return self.read(text)

    def read(self, text: str) -> Sequence[twiml.Verb]:
        """Return the verbs of a document that is at hand.

        Raises:
            DocumentFailed: If it is no TwiML, or one of too many.
        """
        if len(self._record.twiml) >= MAX_DOCUMENTS:
            raise DocumentFailed(0, f"more than {MAX_DOCUMENTS} documents in one call")
        self._record.twiml.append(text)
        try:
            return twiml.parse(text, self._record.warn)
        except twiml.TwimlError as error:
            raise DocumentFailed(12100, str(error)) from None
