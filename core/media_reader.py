"""Recognises the caller's audio fast: of one stream's `media` messages only numbers and audio differ.

Source: Twilio reference, section 1; every shape but the usual one is left to `core.twilio.media_payload`.
"""

from __future__ import annotations

import re

from core.realtime import is_base64
from core.twilio import MediaHead, media_payload

_HEAD = re.compile(
    rb'\{"event":"media","sequenceNumber":"\d{1,15}","media":\{"track":"inbound","chunk":"\d{1,15}",'
    rb'"timestamp":"(\d{1,15})","payload":"'
)


class MediaReader:
    """Reads the `media` messages and the marks of one stream.

    Args:
        stream_sid: Of the stream.
    """

    __slots__ = ("_mark", "_stream_sid", "_tail", "_tail_bytes")

    def __init__(self, stream_sid: str) -> None:
        self._stream_sid = stream_sid
        self._tail = b'"},"streamSid":"' + stream_sid.encode() + b'"}'
        self._tail_bytes = len(self._tail)
        sid, name = rb'"streamSid":"' + re.escape(stream_sid.encode()) + rb'"', rb'"mark":\{"name":"([\w:\-]{1,64})"\}'
        head = rb'\{"event":"mark","sequenceNumber":"\d{1,15}",'
        self._mark = re.compile(head + rb"(?:" + name + rb"," + sid + rb"|" + sid + rb"," + name + rb")\}\Z")

    def mark(self, frame: bytes) -> str | None:
        """Return the name of a mark that came back, in exactly Twilio's shape, or None for all else."""
        if not frame.startswith(b'{"event":"mark"'):
            return None
        found = self._mark.match(frame)
        return None if found is None else (found[1] or found[2]).decode("ascii")

    def read(self, frame: bytes) -> MediaHead | None:
        """Return the caller's audio of a message in exactly Twilio's shape, or None: then `read_message` must decide.

        Every byte of the payload is in the base64 alphabet, so it may be written into another JSON message as it is.
        """
        head = _HEAD.match(frame)
        if head is None or not frame.endswith(self._tail):
            return media_payload(frame, self._stream_sid)
        payload = frame[head.end() : -self._tail_bytes]
        return MediaHead(int(head[1]), payload) if is_base64(payload) else None
