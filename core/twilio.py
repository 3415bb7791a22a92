"""The Media Streams vocabulary: reading what Twilio sends, building what it takes, checking who sent it.

Nine of ten messages are audio, so both directions have a path that cuts the base64 text out of one envelope and puts
it into the other without parsing. A stream's sid and a mark's name are checked when they are read; that is why they
may be written into a message as they are.

Source of all names and shapes: Twilio, "Media Streams - WebSocket messages" and "Webhooks security". The order of the
keys in `media` is that of messages published by users: `streamSid` comes last.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from core.realtime import APPEND_HEAD, APPEND_TAIL, is_base64

SAMPLE_RATE_HZ = 8_000
BYTES_PER_MS = 8
"""G.711 mu-law, one byte a sample."""

FRAME_BYTES = 160
"""What Twilio sends at a time, 20 ms; audio to Twilio is best cut on multiples of it."""

SILENCE = b"\xff"
"""The quietest mu-law byte. Zero bytes are the loudest there is."""

MAX_QUEUED_MS = 600_000
"""Twilio drops what exceeds ten minutes of queued audio (warning 31931)."""

_NAME = re.compile(r"[A-Za-z0-9_\-]{1,64}")
_NUMBER = re.compile(r"[0-9]{1,15}")

_MEDIA_HEAD = re.compile(
    rb'\{"event": ?"media", ?"sequenceNumber": ?"\d{1,15}", ?(?:"streamSid": ?"([\w\-]{1,64})", ?)?'
    rb'"media": ?\{"track": ?"inbound", ?"chunk": ?"\d{1,15}", ?"timestamp": ?"(\d{1,15})", ?"payload": ?"'
)
_MEDIA_TAIL = re.compile(rb'"\}(?:, ?"streamSid": ?"([\w\-]{1,64})")?\}')

_MARK = re.compile(r"g([0-9]{1,9}):([0-9]{1,9})")

_HASHES: Mapping[str, Callable[..., Any]] = {"HMAC_SHA1": hashlib.sha1, "HMAC_SHA256": hashlib.sha256}


class BadMessage(Exception):
    """Raised when a message is not one of Media Streams; its text names the fault and never the content."""


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """What the audio of a stream is."""

    encoding: str
    sample_rate: int
    channels: int

    @property
    def is_mulaw(self) -> bool:
        """True for mu-law at 8 kHz in one channel, the only format that is documented; refuse every other."""
        return (self.encoding, self.sample_rate, self.channels) == ("audio/x-mulaw", SAMPLE_RATE_HZ, 1)


@dataclass(frozen=True, slots=True)
class Connected:
    """The socket is open; there is no stream yet, so nothing may be sent."""

    protocol: str
    version: str


@dataclass(frozen=True, slots=True)
class Start:
    """The stream begins.

    Attributes:
        account_sid: Account that owns the call; its token signed the handshake.
        parameters: From `<Parameter>`; may hold a one-time token.
    """

    stream_sid: str
    call_sid: str
    account_sid: str
    tracks: tuple[str, ...]
    media_format: MediaFormat
    parameters: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Media:
    """Audio of one track, usually 20 ms; `timestamp_ms` counts from the beginning of the stream."""

    stream_sid: str
    track: str
    chunk: int
    timestamp_ms: int
    payload: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Dtmf:
    """The caller pressed one key."""

    stream_sid: str
    digit: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark of ours came back: everything before it was played, or flushed by `clear`."""

    stream_sid: str
    name: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The stream is over: the caller hung up, the call ended, or other TwiML took its place."""

    stream_sid: str
    call_sid: str
    account_sid: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event this version does not know; ignore it."""

    event: str


Message = Connected | Start | Media | Dtmf | Mark | Stop | Unknown


def read_message(frame: bytes) -> Message:
    """Return one message of Twilio, its numbers-as-strings parsed.

    Raises:
        BadMessage: If it is not a JSON object with an `event`, or a known event lacks a field or has a bad one.
    """
    try:
        message = json.loads(frame)
    except (ValueError, RecursionError):
        raise BadMessage("not JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("event"), str):
        raise BadMessage("no event")
    reader = _READERS.get(message["event"])
    return Unknown(message["event"][:64]) if reader is None else reader(message)


def _read_connected(message: Mapping[str, Any]) -> Connected:
    return Connected(str(message.get("protocol", "")), str(message.get("version", "")))


def _read_start(message: Mapping[str, Any]) -> Start:
    body = _object(message, "start")
    stream_sid = _name(body if "streamSid" in body else message, "streamSid")
    if message.get("streamSid", stream_sid) != stream_sid:
        raise BadMessage("streamSid differs")
    tracks = body.get("tracks", [])
    parameters = body.get("customParameters") or {}
    if not isinstance(tracks, list) or not all(isinstance(track, str) for track in tracks):
        raise BadMessage("tracks")
    if not isinstance(parameters, dict) or not all(isinstance(value, str) for value in parameters.values()):
        raise BadMessage("customParameters")
    kind = _object(body, "mediaFormat")
    media_format = MediaFormat(str(kind.get("encoding")), _number(kind, "sampleRate"), _number(kind, "channels"))
    return Start(stream_sid, _name(body, "callSid"), _name(body, "accountSid"), tuple(tracks), media_format, parameters)


def _read_media(message: Mapping[str, Any]) -> Media:
    body = _object(message, "media")
    payload = body.get("payload")
    if not isinstance(payload, str) or not is_base64(payload.encode("ascii", "replace")):
        raise BadMessage("payload")
    return Media(
        _name(message, "streamSid"),
        str(body.get("track", "")),
        _number(body, "chunk"),
        _number(body, "timestamp"),
        payload,
    )


def _read_dtmf(message: Mapping[str, Any]) -> Dtmf:
    digit = _object(message, "dtmf").get("digit")
    # A to D exist on the wire of the telephone network, though on no telephone.
    if not isinstance(digit, str) or len(digit) != 1 or digit not in "0123456789*#ABCD":
        raise BadMessage("digit")
    return Dtmf(_name(message, "streamSid"), digit)


def _read_mark(message: Mapping[str, Any]) -> Mark:
    name = _object(message, "mark").get("name")
    if not isinstance(name, str):
        raise BadMessage("mark name")
    return Mark(_name(message, "streamSid"), name)


def _read_stop(message: Mapping[str, Any]) -> Stop:
    body = _object(message, "stop")
    return Stop(_name(message, "streamSid"), _name(body, "callSid"), _name(body, "accountSid"))


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Message]] = {
    "connected": _read_connected,
    "start": _read_start,
    "media": _read_media,
    "dtmf": _read_dtmf,
    "mark": _read_mark,
    "stop": _read_stop,
}


def _object(holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = holder.get(key)
    if not isinstance(value, dict):
        raise BadMessage(key)
    return value


def _name(holder: Mapping[str, Any], key: str) -> str:
    value = holder.get(key)
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise BadMessage(key)
    return value


def _number(holder: Mapping[str, Any], key: str) -> int:
    value = holder.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str) or not _NUMBER.fullmatch(str(value)):
        raise BadMessage(key)
    return int(value)


class MediaHead(NamedTuple):
    """Audio cut out of a `media` message: when it was, and its base64 text."""

    timestamp_ms: int
    payload: bytes


def media_payload(frame: bytes, stream_sid: str) -> MediaHead | None:
    """Return the caller's audio of a message in exactly Twilio's shape, or None: then `read_message` must decide.

    Every byte of the payload is in the base64 alphabet, so it may be written into another JSON message as it is.
    """
    head = _MEDIA_HEAD.match(frame)
    if head is None:
        return None
    end = frame.find(b'"', head.end())
    tail = _MEDIA_TAIL.fullmatch(frame, end) if end != -1 else None
    if tail is None or (head.group(1) or tail.group(1)) != stream_sid.encode():
        return None
    payload = frame[head.end() : end]
    return MediaHead(int(head.group(2)), payload) if is_base64(payload) else None


def append_from_media(payload: bytes) -> bytes:
    """Return the `input_audio_buffer.append` of a payload that `media_payload` or `read_message` let through."""
    return APPEND_HEAD + payload + APPEND_TAIL


def append_from_audio(audio: bytes) -> bytes:
    """Return the `input_audio_buffer.append` of raw mu-law, as for frames that are sent together."""
    return APPEND_HEAD + base64.b64encode(audio) + APPEND_TAIL


def media_message(stream_sid: str, payload: bytes) -> bytes:
    """Return the message that queues audio at Twilio; payload: base64 of raw mu-law, 8 kHz mono, no header."""
    return b'{"event":"media","streamSid":"' + stream_sid.encode() + b'","media":{"payload":"' + payload + b'"}}'


def mark_message(stream_sid: str, name: str) -> bytes:
    """Return the message that Twilio sends back when everything before it was played or flushed."""
    text = json.dumps(name).encode()
    return b'{"event":"mark","streamSid":"' + stream_sid.encode() + b'","mark":{"name":' + text + b"}}"


def clear_message(stream_sid: str) -> bytes:
    """Return the message that empties Twilio's queue; it gives all marks back."""
    return b'{"event":"clear","streamSid":"' + stream_sid.encode() + b'"}'


class MarkName(NamedTuple):
    """A mark's name as we give it: `g3:17` is the 17th mark of generation 3.

    A generation ends with `clear`; a mark of an older one that comes back was flushed, not heard.
    """

    generation: int
    number: int

    def __str__(self) -> str:
        """Return the name as Twilio carries it."""
        return f"g{self.generation}:{self.number}"


def read_mark_name(name: str) -> MarkName | None:
    """Return what a mark's name says, or None for a name that is not ours."""
    found = _MARK.fullmatch(name)
    return MarkName(int(found.group(1)), int(found.group(2))) if found else None


def signature(url: str, params: Iterable[tuple[str, str]], token: str, *, algorithm: str = "HMAC_SHA1") -> str:
    """Return what Twilio puts into `X-Twilio-Signature`.

    Args:
        url: The exact text Twilio was given, with its query; a stream's begins with `wss://`.
        params: Form fields of a POST as (name, value), those with an empty value too; none for a handshake, for a GET
            and for a JSON body.
        token: Primary auth token of the account that owns the call, or the secret of a shared key.
        algorithm: From `signing_algorithm`.

    Raises:
        KeyError: If the algorithm is not one of Twilio's two.
    """
    text = url + "".join(name + value for name, value in sorted(set(params)))
    digest = hmac.new(token.encode(), text.encode("utf-8", "surrogatepass"), _HASHES[algorithm]).digest()
    return base64.b64encode(digest).decode()


def signature_matches(
    url: str, params: Iterable[tuple[str, str]], token: str, *, given: str | None, settings: str | None = None
) -> bool:
    """Return whether a request was signed with this token, in time that does not depend on the signature.

    A stream's URL must match to the letter. A webhook's may differ in a port, which Twilio's signer adds or leaves
    out; the official helper lets the same variants pass.

    Args:
        url: As configured, never as the request claims it.
        params: See `signature`.
        token: See `signature`; an empty one matches nothing.
        given: Header `X-Twilio-Signature`.
        settings: Header `X-Twilio-Webhooks-Signature-Settings`.
    """
    algorithm = signing_algorithm(settings)
    if not (token and given) or algorithm not in _HASHES:
        return False
    fields = list(params)
    sent = given.encode("utf-8", "replace")
    matches = [
        hmac.compare_digest(signature(text, fields, token, algorithm=algorithm).encode(), sent)
        for text in _spellings(url)
    ]
    return any(matches)


def signing_algorithm(settings: str | None) -> str:
    """Return the algorithm named in `X-Twilio-Webhooks-Signature-Settings`; without one it is HMAC-SHA1."""
    for part in (settings or "").split(","):
        name, _, value = part.partition("=")
        if name.strip() == "algorithm" and value.strip():
            return value.strip().upper()
    return "HMAC_SHA1"


def _spellings(url: str) -> Iterator[str]:
    yield url
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or "@" in parts.netloc:
        return
    bare = parts.netloc.removesuffix(f":{parts.port}")
    default = 443 if parts.scheme == "https" else 80
    yield parts._replace(netloc=bare if parts.port else f"{bare}:{default}").geturl()
