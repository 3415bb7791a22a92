"""TwiML, read as Twilio reads it: verbs in order, the rules it insists on, and what it warns of.

Source of the rules: Twilio, TwiML `<Connect>`, `<Stream>`, `<Say>`, `<Pause>`, `<Play>`, `<Dial>`, `<Redirect>`,
`<Hangup>`, `<Reject>`; error pages 12100, 12200, 31941.
"""
from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

# Name and value of one <Parameter> together stay below this.
PARAMETER_CHARS = 500
# More verbs than anybody writes; beyond, the document is a mistake.
MAX_VERBS = 100


class TwimlError(ValueError):
    """Raised when a document is no TwiML at all (12100)."""


@dataclass(frozen=True)
class Say:
    """Speak a text, `loop` times."""

    text: str
    voice: str = ""
    loop: int = 1


@dataclass(frozen=True)
class Pause:
    """Be silent."""

    length_s: float = 1.0


@dataclass(frozen=True)
class Play:
    """Play a file, or press keys."""

    url: str = ""
    digits: str = ""
    loop: int = 1


@dataclass(frozen=True)
class Redirect:
    """Go on with another document."""

    url: str
    method: str = "POST"


@dataclass(frozen=True)
class Dial:
    """Call somebody else and connect both; `targets` are numbers, or `kind:name` for others."""

    targets: tuple[str, ...]
    action: str = ""
    method: str = "POST"
    caller_id: str = ""


@dataclass(frozen=True)
class Hangup:
    """End the call."""


@dataclass(frozen=True)
class Reject:
    """Refuse the call without answering it."""

    reason: str = "rejected"


@dataclass(frozen=True)
class Stream:
    """A stream inside `<Connect>`; `url` as it stands in the document."""

    url: str
    name: str = ""
    track: str = ""
    status_callback: str = ""
    status_callback_method: str = "POST"
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Connect:
    """Connect the call to a stream; then `action`, or the next verb."""

    stream: Stream
    action: str = ""
    method: str = "POST"


Verb = Say | Pause | Play | Redirect | Dial | Hangup | Reject | Connect
Warn = Callable[[int, str], None]


def parse(document: str, warn: Warn) -> list[Verb]:
    """Return the verbs of a document; what is not understood is left out with a warning, as Twilio does.

    Raises:
        TwimlError: If it is not XML, or its root is not `<Response>`.
    """
    if "<!DOCTYPE" in document:
        raise TwimlError("a document type is not taken")
    try:
        root = ElementTree.fromstring(document.strip())  # noqa: S314 - no document type, hence no entities
    except ElementTree.ParseError as error:
        raise TwimlError(str(error)) from None
    if root.tag != "Response":
        raise TwimlError(f"the root is <{root.tag}>, not <Response>")
    if (root.text or "").strip():
        warn(12200, "text inside <Response>")
    verbs: list[Verb] = []
    for element in list(root)[:MAX_VERBS]:
        reader = _VERBS.get(element.tag)
        verb = reader(_Element(element, warn)) if reader else None
        if reader is None:
            warn(12200, f"<{element.tag}> is no verb that the simulator knows")
        if verb is not None:
            verbs.append(verb)
    return verbs


class _Element:
    """An element whose attributes are taken one by one; those never taken are warned of."""

    def __init__(self, element: ElementTree.Element, warn: Warn) -> None:
        self.element = element
        self.warn = warn
        self.text = "".join(element.itertext()).strip()

    def take(self, *names: str) -> list[str]:
        """Return these attributes, empty where absent; warn of every other."""
        for name in sorted(set(self.element.attrib) - set(names)):
            self.warn(12200, f"attribute {name} is not allowed in <{self.element.tag}>")
        return [self.element.get(name, "") for name in names]

    def method(self, given: str) -> str:
        """Return GET or POST; anything else is warned of and means POST."""
        if given.upper() in {"", "GET", "POST"}:
            return given.upper() or "POST"
        self.warn(12200, f"method {given} in <{self.element.tag}>")
        return "POST"

    def number(self, given: str, default: int) -> int:
        """Return a whole number; anything else is warned of and means the default."""
        if given.isascii() and given.isdigit():
            return int(given)
        if given:
            self.warn(12200, f"{given!r} in <{self.element.tag}> is no number")
        return default


def _say(element: _Element) -> Verb | None:
    voice, loop, _ = element.take("voice", "loop", "language")
    if not element.text:
        element.warn(12200, "<Say> without text")
        return None
    return Say(element.text, voice, element.number(loop, 1))


def _pause(element: _Element) -> Verb:
    (length,) = element.take("length")
    return Pause(element.number(length, 1))


def _play(element: _Element) -> Verb | None:
    digits, loop = element.take("digits", "loop")
    if not element.text and not digits:
        element.warn(12200, "<Play> without a URL")
        return None
    return Play(element.text, digits, element.number(loop, 1))


def _redirect(element: _Element) -> Verb | None:
    (method,) = element.take("method")
    if not element.text:
        element.warn(12200, "<Redirect> without a URL")
        return None
    return Redirect(element.text, element.method(method))


def _dial(element: _Element) -> Verb | None:
    action, method, caller_id, *_ = element.take(
        "action", "method", "callerId", "timeout", "timeLimit", "record", "answerOnBridge", "hangupOnStar", "ringTone"
    )
    nouns = list(element.element)
    targets = [
        (noun.text or "").strip() if noun.tag == "Number" else f"{noun.tag.lower()}:{(noun.text or '').strip()}"
        for noun in nouns
    ] or [element.text]
    if not all(target.rpartition(":")[2] for target in targets):
        element.warn(12200, "<Dial> without a number")
        return None
    return Dial(tuple(targets), action, element.method(method), caller_id)


def _hangup(element: _Element) -> Verb:
    element.take()
    return Hangup()


def _reject(element: _Element) -> Verb:
    (reason,) = element.take("reason")
    return Reject(reason or "rejected")


def _connect(element: _Element) -> Verb | None:
    action, method = element.take("action", "method")
    nouns = list(element.element)
    if len(nouns) != 1 or nouns[0].tag != "Stream":
        element.warn(12200, "<Connect> must hold exactly one <Stream>")
        return None
    stream = _stream(_Element(nouns[0], element.warn))
    return None if stream is None else Connect(stream, action, element.method(method))


def _stream(element: _Element) -> Stream | None:
    url, name, track, callback, method = element.take("url", "name", "track", "statusCallback", "statusCallbackMethod")
    parts = urlsplit(url)
    if not parts.scheme or not parts.netloc:
        element.warn(12200, "<Stream> without an absolute url")
        return None
    if track not in {"", "inbound_track"}:
        element.warn(31941, f"track {track} inside <Connect>")
        return None
    if callback and not urlsplit(callback).netloc:
        element.warn(12200, "statusCallback is not absolute")
        callback = ""
    parameters: dict[str, str] = {}
    for child in element.element:
        key, value = child.get("name", ""), child.get("value", "")
        if child.tag != "Parameter" or not key:
            element.warn(12200, f"<{child.tag}> inside <Stream>")
        elif len(key) + len(value) >= PARAMETER_CHARS:
            element.warn(0, f"<Parameter> {key} has {PARAMETER_CHARS} characters or more with its value")
            return None
        else:
            parameters[key] = value
    return Stream(url, name, track, callback, element.method(method), parameters)


_VERBS: Mapping[str, Callable[[_Element], Verb | None]] = {
    "Say": _say,
    "Pause": _pause,
    "Play": _play,
    "Redirect": _redirect,
    "Dial": _dial,
    "Hangup": _hangup,
    "Reject": _reject,
    "Connect": _connect,
}
