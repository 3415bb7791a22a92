"""TwiML of the official builder is understood; what Twilio warns of is warned of."""
from __future__ import annotations

import pytest
from twilio.twiml.voice_response import Connect, Dial, VoiceResponse

from simulator.twiml import (
    Connect as ConnectVerb,
)
from simulator.twiml import (
    Dial as DialVerb,
)
from simulator.twiml import (
    Hangup,
    Pause,
    Play,
    Redirect,
    Reject,
    Say,
    Stream,
    TwimlError,
    Verb,
    parse,
)

URL = "wss://voice.example.com/api/twilio/media-stream"


def read(document: str) -> tuple[list[Verb], list[int]]:
    """Return the verbs and the codes of the warnings."""
    codes: list[int] = []
    return parse(document, lambda code, _: codes.append(code)), codes


def test_everything_the_builder_makes_is_read() -> None:
    """Every verb, with its attributes and defaults."""
    response, connect, dial = VoiceResponse(), Connect(action="/after", method="GET"), Dial(caller_id="+15005550106")
    stream = connect.stream(url=URL, name="s1", status_callback="https://a.example/s", status_callback_method="GET")
    stream.parameter(name="token", value='<"&>')
    response.append(connect)
    response.say("hello", voice="alice", loop=2)
    response.pause(length=3)
    response.play("https://a.example/a.wav")
    response.play("", digits="12#")
    dial.number("+15005550199")
    dial.conference("room")
    response.append(dial)
    response.dial("+15005550198", action="/dialled")
    response.redirect("/next", method="GET")
    response.reject("busy")
    response.hangup()
    verbs, codes = read(str(response))
    assert codes == []
    assert verbs == [
        ConnectVerb(Stream(URL, "s1", "", "https://a.example/s", "GET", {"token": '<"&>'}), "/after", "GET"),
        Say("hello", "alice", 2), Pause(3), Play("https://a.example/a.wav"), Play(digits="12#"),
        DialVerb(("+15005550199", "conference:room"), caller_id="+15005550106"),
        DialVerb(("+15005550198",), "/dialled"), Redirect("/next", "GET"), Reject("busy"), Hangup(),
    ]


@pytest.mark.parametrize(("inside", "code"), [
    ("<Connect><Stream url='/relative'/></Connect>", 12200),
    ("<Connect><Stream/></Connect>", 12200),
    ("<Connect/>", 12200),
    ("<Connect><Room>r</Room></Connect>", 12200),
    (f"<Connect><Stream url='{URL}' track='both_tracks'/></Connect>", 31941),
    (f"<Connect><Stream url='{URL}'><Parameter name='n' value='{'v' * 499}'/></Stream></Connect>", 0),
    ("<Say/>", 12200),
    ("<Play/>", 12200),
    ("<Redirect/>", 12200),
    ("<Dial/>", 12200),
    ("<Dial><Number/></Dial>", 12200),
    ("<Start><Stream url='wss://x.example/'/></Start>", 12200),
    ("<say>hello</say>", 12200),
    ("hello", 12200),
])
def test_what_cannot_be_run_is_left_out_with_a_warning(inside: str, code: int) -> None:
    """The rest of the document is run."""
    verbs, codes = read(f"<Response>{inside}<Hangup/></Response>")
    assert (verbs, codes) == ([Hangup()], [code])


@pytest.mark.parametrize("inside", [
    f"<Connect><Stream url='{URL}' statusCallback='/relative'/></Connect>",
    f"<Connect><Stream url='{URL}'><Other name='n' value='v'/></Stream></Connect>",
    f"<Connect method='PUT'><Stream url='{URL}'/></Connect>",
    f"<Connect><Stream url='{URL}' codec='opus'/></Connect>",
    "<Pause length='long'/>",
    "<Hangup now='yes'/>",
])
def test_bad_attribute_is_ignored_with_a_warning(inside: str) -> None:
    """The verb itself is run."""
    verbs, codes = read(f"<Response>{inside}</Response>")
    assert (len(verbs), codes) == (1, [12200])


def test_parameter_just_below_the_limit_passes() -> None:
    """Name and value have 499 characters together."""
    parameter = f"<Parameter name='n' value='{'v' * 498}'/>"
    verbs, codes = read(f"<Response><Connect><Stream url='{URL}'>{parameter}</Stream></Connect></Response>")
    assert (len(verbs), codes) == (1, [])


@pytest.mark.parametrize("document", [
    "", "hello", "<Response>", "<response/>", "<Response><Say></Response>",
    "<!DOCTYPE r [<!ENTITY a 'a'>]><Response>&a;</Response>",
])
def test_no_twiml_at_all_is_an_error(document: str) -> None:
    """Not XML, another root, or entities."""
    with pytest.raises(TwimlError):
        read(document)
