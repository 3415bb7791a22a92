"""Media Streams: every message is read to the letter, built to the letter, and its sender checked."""

from __future__ import annotations

import base64
import json
from binascii import a2b_base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from core.realtime import is_canonical_append
from core.twilio import (
    FRAME_BYTES,
    SILENCE,
    BadMessage,
    Connected,
    Dtmf,
    MarkName,
    Media,
    MediaFormat,
    Start,
    Stop,
    Unknown,
    append_from_audio,
    append_from_media,
    clear_message,
    mark_message,
    media_message,
    media_payload,
    read_mark_name,
    read_message,
    signature,
    signature_matches,
    signing_algorithm,
)
from core.twilio import Mark as PlayedMark

SID = "MZ" + "0" * 32
CALL, ACCOUNT = "CA" + "1" * 32, "AC" + "2" * 32
FRAME = base64.b64encode(SILENCE * FRAME_BYTES)
TOKEN = "a-token-of-the-test"
URL = "wss://voice.example.com/api/twilio/media-stream"
HOOK = "https://voice.example.com/api/twilio/voice?lang=en%20us"


def frame(event: str, **fields: Any) -> bytes:
    """Return a message as Twilio sends it, its fields in the order given."""
    return json.dumps({"event": event, **fields}, separators=(",", ":")).encode()


def media(*, payload: str = FRAME.decode(), **changes: Any) -> bytes:
    """Return a media message in the order seen on the wire, with changes of single fields."""
    body = {"track": "inbound", "chunk": "1", "timestamp": "20", "payload": payload, **changes}
    return frame("media", sequenceNumber="2", media=body, streamSid=SID)


def start(top: Any = SID, **changes: Any) -> bytes:
    """Return a start message with changes of single fields; None leaves a field out."""
    body: dict[str, Any] = {
        "accountSid": ACCOUNT,
        "streamSid": SID,
        "callSid": CALL,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": "one-time"},
        **changes,
    }
    body = {key: value for key, value in body.items() if value is not None}
    return frame("start", sequenceNumber="1", start=body, **({} if top is None else {"streamSid": top}))


class TestReading:
    """Every message of the documentation, and what is refused."""

    def test_connected_says_protocol_and_version(self) -> None:
        """The first message carries no stream."""
        assert read_message(frame("connected", protocol="Call", version="1.0.0")) == Connected("Call", "1.0.0")

    def test_start_names_stream_call_account_and_parameters(self) -> None:
        """All that identifies a call is in start, and the token in it is not printed."""
        message = read_message(start())
        assert message == Start(
            SID, CALL, ACCOUNT, ("inbound",), MediaFormat("audio/x-mulaw", 8000, 1), {"token": "one-time"}
        )
        assert "one-time" not in repr(message)
        assert isinstance(message, Start)
        assert message.media_format.is_mulaw

    @pytest.mark.parametrize("given_parameters", [None, {}])
    def test_start_without_parameters_has_none(self, given_parameters: Any) -> None:
        """customParameters may be absent."""
        message = read_message(start(customParameters=given_parameters))
        assert isinstance(message, Start)
        assert message.parameters == {}

    @pytest.mark.parametrize(("top", "inner"), [(None, SID), (SID, None), (SID, SID)])
    def test_stream_sid_of_start_may_stand_in_either_place(self, top: Any, inner: Any) -> None:
        """One of the two places is enough."""
        message = read_message(start(top, streamSid=inner))
        assert isinstance(message, Start)
        assert message.stream_sid == SID

    def test_numbers_of_the_media_format_may_be_text(self) -> None:
        """Numbers arrive as numbers or as text; both are read."""
        message = read_message(start(mediaFormat={"encoding": "audio/x-mulaw", "sampleRate": "8000", "channels": "1"}))
        assert isinstance(message, Start)
        assert message.media_format.is_mulaw

    @pytest.mark.parametrize(
        "other", [("audio/x-l16", 8000, 1), ("audio/x-mulaw", 16000, 1), ("audio/x-mulaw", 8000, 2)]
    )
    def test_any_other_format_is_not_mulaw(self, other: tuple[str, int, int]) -> None:
        """All three values must fit."""
        assert not MediaFormat(*other).is_mulaw

    def test_media_parses_its_numbers(self) -> None:
        """chunk and timestamp come as text and leave as numbers; the audio is not printed."""
        message = read_message(media())
        assert message == Media(SID, "inbound", 1, 20, FRAME.decode())
        assert FRAME.decode() not in repr(message)

    def test_dtmf_gives_one_key(self) -> None:
        """A key is one character and is not printed: it may belong to a card number."""
        message = read_message(frame("dtmf", streamSid=SID, dtmf={"track": "inbound_track", "digit": "#"}))
        assert message == Dtmf(SID, "#")
        assert "#" not in repr(message)

    def test_mark_gives_its_name(self) -> None:
        """The name is the one we gave."""
        assert read_message(frame("mark", streamSid=SID, mark={"name": "g3:17"})) == PlayedMark(SID, "g3:17")

    def test_stop_names_the_call(self) -> None:
        """stop has no reason, only sids."""
        body = {"accountSid": ACCOUNT, "callSid": CALL}
        assert read_message(frame("stop", streamSid=SID, stop=body)) == Stop(SID, CALL, ACCOUNT)

    def test_unknown_event_is_no_error(self) -> None:
        """What Twilio adds later is named, and its name is cut."""
        assert read_message(frame("x" * 100, anything=1)) == Unknown("x" * 64)

    @pytest.mark.parametrize(
        "bad",
        [
            b"",
            b"\xff",
            b"[1]",
            b"{}",
            b'{"event":7}',
            b"[" * 100_000,
            frame("start", streamSid=SID),
            start("MZother"),
            start(None, streamSid=None),
            start(callSid=7),
            start(callSid="CA1'; --"),
            start(accountSid=None),
            start(tracks="inbound"),
            start(tracks=[1]),
            start(customParameters=["token"]),
            start(customParameters={"token": 7}),
            start(mediaFormat=None),
            start(mediaFormat={"encoding": "audio/x-mulaw", "sampleRate": True, "channels": 1}),
            start(mediaFormat={"encoding": "audio/x-mulaw", "sampleRate": None, "channels": 1}),
            media(timestamp="-20"),
            media(timestamp="1.5"),
            media(chunk=""),
            media(payload="not base64!"),
            media(payload="AAA"),
            media(payload="ÄÄÄÄ"),
            frame("media", streamSid=SID, media={"track": "inbound", "chunk": "1", "timestamp": "20"}),
            frame("media", media={"track": "inbound", "chunk": "1", "timestamp": "20", "payload": "AAAA"}),
            frame("dtmf", streamSid=SID, dtmf={"digit": "12"}),
            frame("dtmf", streamSid=SID, dtmf={"digit": ""}),
            frame("dtmf", streamSid=SID, dtmf={"digit": "x"}),
            frame("dtmf", streamSid=SID, dtmf={"digit": 5}),
            frame("dtmf", streamSid=SID, dtmf="5"),
            frame("mark", streamSid=SID, mark={}),
            frame("mark", streamSid=7, mark={"name": "a"}),
            frame("stop", streamSid=SID, stop={}),
        ],
        ids=lambda bad: bad[:60].decode("ascii", "replace"),
    )
    def test_malformed_message_is_refused(self, bad: bytes) -> None:
        """A known event with a missing or bad field raises, and the error shows nothing of the content."""
        with pytest.raises(BadMessage) as caught:
            read_message(bad)
        assert len(str(caught.value)) < 30

    @given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
    def test_no_input_raises_anything_else(self, anything: bytes) -> None:
        """Whatever arrives is a message or a BadMessage."""
        try:
            read_message(anything)
        except BadMessage:
            pass
        media_payload(anything, SID)


class TestFastPath:
    """The caller's audio is cut out of exactly Twilio's shape, and of nothing else."""

    def test_cut_audio_is_what_parsing_gives(self) -> None:
        """Payload and timestamp are those of the slow path."""
        head = media_payload(media(timestamp="1234"), SID)
        assert head is not None
        assert (head.timestamp_ms, head.payload) == (1234, FRAME)

    def test_sid_before_the_media_is_the_same(self) -> None:
        """The documentation's order of keys is taken as well as the wire's."""
        body = {"track": "inbound", "chunk": "1", "timestamp": "20", "payload": "AAAA"}
        head = media_payload(frame("media", sequenceNumber="2", streamSid=SID, media=body), SID)
        assert head is not None
        assert head.payload == b"AAAA"

    @given(st.binary(min_size=1, max_size=400), st.integers(0, 10**12))
    def test_any_audio_survives_the_splice(self, audio: bytes, timestamp: int) -> None:
        """What arrives in the append is what the caller said, at every length."""
        head = media_payload(media(payload=base64.b64encode(audio).decode(), timestamp=str(timestamp)), SID)
        assert head is not None
        assert (head.timestamp_ms, a2b_base64(head.payload)) == (timestamp, audio)
        append = append_from_media(head.payload)
        assert is_canonical_append(append)
        assert append == append_from_audio(audio)

    @pytest.mark.parametrize(
        "other",
        [
            b"",
            frame("mark", sequenceNumber="2", mark={"name": "a"}, streamSid=SID),
            media(track="outbound"),
            media(timestamp=20),
            media(payload="AA\\u0041A"),
            media(payload="AA=A"),
            media(payload="AAA"),
            media()[:-1],
            media()[:-60],
            media() + b"\n",
            media().replace(SID.encode(), b"MZother"),
            media(payload="A"),
            media().replace(b'"}', b'","payload":"AAAA"}'),
            b'{"event":"media","sequenceNumber":"2","media":{"track":"inbound","chunk":"1","timestamp":"20","payload":"AAAA',
        ],
        ids=range(14),
    )
    def test_any_other_shape_is_left_to_the_parser(self, other: bytes) -> None:
        """Nothing that is not exactly such a message, of this stream, takes the fast path."""
        assert media_payload(other, SID) is None


MEDIA_SCHEMA = {"event": "media", "streamSid": SID, "media": {"payload": FRAME.decode()}}


class TestBuilding:
    """Every message to Twilio has exactly the documented fields: one more or less is warning 31951."""

    @pytest.mark.parametrize(
        ("message", "fields"),
        [
            (media_message(SID, FRAME), MEDIA_SCHEMA),
            (mark_message(SID, "g3:17"), {"event": "mark", "streamSid": SID, "mark": {"name": "g3:17"}}),
            (mark_message(SID, 'a "name"'), {"event": "mark", "streamSid": SID, "mark": {"name": 'a "name"'}}),
            (clear_message(SID), {"event": "clear", "streamSid": SID}),
        ],
    )
    def test_message_has_exactly_the_documented_fields(self, message: bytes, fields: dict[str, Any]) -> None:
        """Field by field, and in UTF-8 text."""
        assert json.loads(message.decode()) == fields

    def test_mark_name_is_read_back(self) -> None:
        """A name says its generation and its number."""
        assert str(MarkName(3, 17)) == "g3:17"
        assert read_mark_name("g3:17") == MarkName(3, 17)

    @pytest.mark.parametrize("name", ["", "g3", "g3:", "3:17", "g3:17\n", "g-1:2", "g³:1", "g1234567890:1"])
    def test_foreign_mark_name_is_none(self, name: str) -> None:
        """Only names of ours are read."""
        assert read_mark_name(name) is None


FIELDS = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=6)


class TestSignature:
    """Our signatures are those of the official helper."""

    def test_handshake_is_signed_over_the_url_alone(self) -> None:
        """The wss text is signed as it is; scheme, case, slash and port all matter."""
        given_signature = RequestValidator(TOKEN).compute_signature(URL, {})
        assert signature(URL, (), TOKEN) == given_signature
        assert signature_matches(URL, (), TOKEN, given=given_signature)
        for other in (URL.replace("wss", "https"), URL + "/", URL.upper(), URL.replace(".com", ".com:443")):
            assert not signature_matches(other, (), TOKEN, given=given_signature)

    @given(FIELDS)
    def test_form_is_signed_sorted(self, fields: list[tuple[str, str]]) -> None:
        """Names and values are sorted, doubles count once, empty values are signed too."""
        form: dict[str, list[str]] = {}
        for name, value in fields:
            form.setdefault(name, []).append(value)

        class Form(dict[str, list[str]]):
            """A form with several values for a name, as Flask gives it to the helper."""

            def getall(self, name: str) -> list[str]:
                """Return all values of a name."""
                return self[name]

        assert signature(HOOK, fields, TOKEN) == RequestValidator(TOKEN).compute_signature(HOOK, Form(form))

    @pytest.mark.parametrize(
        "told",
        [
            "https://voice.example.com/voice",
            "https://voice.example.com:443/voice",
            "https://voice.example.com:8443/voice?a=b",
            "http://127.0.0.1:8080/voice",
            "http://voice.example.com/voice",
        ],
    )
    def test_port_of_a_webhook_may_be_added_or_left_out(self, told: str) -> None:
        """The official helper accepts the same variants of a webhook's address."""
        fields = {"CallSid": CALL, "Empty": ""}
        other_ports = told.replace(":8443", ""), told.replace(":443", "")
        for signed in (told, *other_ports, told + "x", told.replace("http", "x")):
            given_signature = RequestValidator(TOKEN).compute_signature(signed, fields)
            expected = RequestValidator(TOKEN).validate(told, fields, given_signature)
            assert signature_matches(told, fields.items(), TOKEN, given=given_signature) == expected

    def test_name_and_password_in_the_url_are_signed_as_they_stand(self) -> None:
        """No variants are made of such an address."""
        told = "https://user:secret@voice.example.com/voice"
        assert signature_matches(told, (), TOKEN, given=signature(told, (), TOKEN))

    @pytest.mark.parametrize("sent", [None, "", "ä", "\ud800", "AAAA"])
    def test_missing_or_strange_signature_matches_nothing(self, sent: str | None) -> None:
        """No header value raises."""
        assert not signature_matches(URL, (), TOKEN, given=sent)

    def test_empty_token_matches_nothing(self) -> None:
        """A forgotten setting opens no door."""
        assert not signature_matches(URL, (), "", given=signature(URL, (), ""))

    def test_shared_key_signs_with_sha256(self) -> None:
        """The newer header names the algorithm; an unknown one matches nothing."""
        header = "key=webhooks_sharedkey_1, algorithm=hmac_sha256"
        sent = RequestValidator(TOKEN).compute_signature(HOOK, {"A": "b"}, "HMAC_SHA256")
        assert signature_matches(HOOK, [("A", "b")], TOKEN, given=sent, settings=header)
        assert not signature_matches(HOOK, [("A", "b")], TOKEN, given=sent)
        assert not signature_matches(HOOK, [("A", "b")], TOKEN, given=sent, settings="algorithm=HMAC_MD5")

    @pytest.mark.parametrize("header", [None, "", "key=k", "algorithm=", "algorithm"])
    def test_header_without_algorithm_means_sha1(self, header: str | None) -> None:
        """The auth token's signature is the default."""
        assert signing_algorithm(header) == "HMAC_SHA1"
