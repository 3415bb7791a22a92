"""The TwiML this server answers, and the addresses it names in it.

Source of the verbs: Twilio reference, sections 1.6 and 2.5.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

STREAM_PATH = "/api/twilio/media-stream"
STATUS_PATH = "/api/twilio/status"
AFTER_PATH = "/api/twilio/after"

TOKEN_PARAMETER = "token"  # noqa: S105 - the parameter's name
"""Name of the `<Parameter>` that carries a call's one-time token."""

MAX_SENTENCE_CHARS = 1_000
"""Longest spoken sentence, over a minute of speech; Twilio's limit for `<Say>` is 4096."""

REDIRECT_WAIT_S = 10
"""How long the line stays open for a REST update that is on its way; it usually arrives within a second."""

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold. Source: XML 1.0, section 2.2."""

_SCHEMES = {"wss": "https", "ws": "http"}


def http_base(public_url: str) -> str:
    """Return PUBLIC_URL as an `https://` address without a slash at the end, whichever of its schemes was set."""
    scheme, _, rest = public_url.rstrip("/").partition("://")
    return f"{_SCHEMES.get(scheme.lower(), scheme.lower())}://{rest}"


def stream_url(public_url: str) -> str:
    """Return the address of the media stream: what the TwiML names and, to the letter, what the handshake is signed
    over.
    """
    scheme, _, rest = http_base(public_url).partition("://")
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}{STREAM_PATH}"


def connect_stream(public_url: str, token: str) -> str:
    """Return the document that connects a call to the media stream; the token is all of it that is secret.

    `action` decides what follows the stream, so that a stream that never opened does not end in silence.
    """
    base = http_base(public_url)
    response = ElementTree.Element("Response")
    connect = ElementTree.SubElement(response, "Connect", action=f"{base}{AFTER_PATH}", method="POST")
    stream = ElementTree.SubElement(connect, "Stream", url=stream_url(public_url))
    stream.attrib |= {"statusCallback": f"{base}{STATUS_PATH}", "statusCallbackMethod": "POST"}
    ElementTree.SubElement(stream, "Parameter", name=TOKEN_PARAMETER, value=token)
    return _document(response)


def say_and_hang_up(sentence: str) -> str:
    """Return the document that speaks a sentence and ends the call."""
    response = ElementTree.Element("Response")
    ElementTree.SubElement(response, "Say").text = _NOT_XML.sub(" ", sentence)[:MAX_SENTENCE_CHARS]
    ElementTree.SubElement(response, "Hangup")
    return _document(response)


def hang_up() -> str:
    """Return the document that ends the call."""
    response = ElementTree.Element("Response")
    ElementTree.SubElement(response, "Hangup")
    return _document(response)


def wait_for_redirect() -> str:
    """Return the document that keeps the line open until a REST update takes the call over, and then ends it."""
    response = ElementTree.Element("Response")
    ElementTree.SubElement(response, "Pause", length=str(REDIRECT_WAIT_S))
    ElementTree.SubElement(response, "Hangup")
    return _document(response)


def _document(response: ElementTree.Element) -> str:
    return '<?xml version="1.0" encoding="UTF-8"?>' + ElementTree.tostring(response, encoding="unicode")
