"""The telephone page in a real Chromium: through the simulated Twilio to a small phone server, and back to the ear."""
from __future__ import annotations

import asyncio
import base64
import math
import threading
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from handlers.pages import client_routes
from handlers.phone_page import phone_routes
from simulator.audio import PCMU, decode_samples, encode_samples, rms
from simulator.softphone import Listed, Softphone
from simulator.twilio import TwilioSimulator
from simulator.twilio_settings import DEMO_ACCOUNT
from tests.fakes.phone_server import PhoneServer, connect_document

if TYPE_CHECKING:
    from conftest import Tab

pytestmark = pytest.mark.browser
MakeTab = Callable[..., "Tab"]

ROSA, TOM = Listed("+15005550106", "Rosa, receptionist"), Listed("+15005550107", "Tom, language tutor")
ROUND_S = 10.0

# Level and pitch of what the page plays.
HEAR_LINE = """() => {
  const a = phone.handset.analyser, wave = new Float32Array(a.fftSize), bins = new Float32Array(a.frequencyBinCount);
  a.getFloatTimeDomainData(wave); a.getFloatFrequencyData(bins);
  return { rms: Math.sqrt(wave.reduce((s, x) => s + x * x, 0) / wave.length),
    hz: bins.indexOf(Math.max(...bins)) * a.context.sampleRate / a.fftSize };
}"""


def tone(hz: float, seconds: float, level: float = 0.3) -> bytes:
    """Return a sine as mu-law."""
    wave = (round(32_767 * level * math.sin(2 * math.pi * hz * i / 8_000)) for i in range(round(seconds * 8_000)))
    return encode_samples(array("h", wave), PCMU)


def pitch_hz(samples: array[int]) -> int:
    """Return the strongest of 100 to 3,900 Hz in steps of 20 Hz."""

    def power(hz: int) -> float:
        turn = 2 * math.pi * hz / 8_000
        return math.hypot(sum(x * math.cos(turn * i) for i, x in enumerate(samples)),
                          sum(x * math.sin(turn * i) for i, x in enumerate(samples)))

    return max(range(100, 3_901, 20), key=power)


class Exchange:
    """The page's server, a simulated Twilio with a softphone, and the phone server that is called; in one thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="exchange", daemon=True)
        self._thread.start()
        self.wait(self._start())

    async def _start(self) -> None:
        self.twilio = TwilioSimulator()
        self.softphone = Softphone(self.twilio)
        await self.twilio.start(doors=self.softphone.doors())
        self.phone = PhoneServer(token=DEMO_ACCOUNT.auth_token)
        await self.phone.start()
        routes = [*phone_routes(self.softphone.configuration), *client_routes()]
        self._pages = HTTPServer(Application(routes, log_function=lambda _: None))
        sockets = bind_sockets(0, "127.0.0.1")
        self._pages.add_sockets(sockets)
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        self.connect()

    def connect(self, voice_url: str = "") -> None:
        """Let the page call the phone server, or another address."""
        self.softphone.connect(voice_url=voice_url or self.phone.voice_url, origins=[self.url], numbers=[ROSA, TOM])

    def wait(self, work: Any) -> Any:
        """Run a coroutine in the thread and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(ROUND_S)

    def do(self, act: Callable[[], Any]) -> Any:
        """Run a function in the thread."""

        async def work() -> Any:
            return act()

        return self.wait(work())

    def said(self) -> bytes:
        """Return what the phone server has heard of the caller."""
        return b"".join(base64.b64decode(message["media"]["payload"]) for message in self.phone.of("media"))

    def play(self, audio: bytes) -> None:
        """Let the phone server play mu-law to the caller."""
        self.do(lambda: self.phone.sockets[-1].play(audio))

    def stop(self) -> None:
        """Stop everything."""

        async def work() -> None:
            await self.twilio.stop()
            await self.phone.stop()
            self._pages.stop()
            await self._pages.close_all_connections()

        self.wait(work())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(ROUND_S)
        self.loop.close()


@pytest.fixture(scope="module")
def running_exchange() -> Iterator[Exchange]:
    """One exchange for all tests."""
    started = Exchange()
    yield started
    started.stop()


@pytest.fixture
def exchange(running_exchange: Exchange) -> Exchange:
    """The exchange with nobody called yet."""

    async def over() -> None:
        for _ in range(500):
            if not (running_exchange.phone.sockets or running_exchange.softphone.open_phones):
                return
            await asyncio.sleep(0.01)

    def fresh() -> None:
        running_exchange.phone.behaviour, running_exchange.phone.status = (), 200
        running_exchange.phone.received.clear()
        running_exchange.phone.forms.clear()
        running_exchange.phone.document = connect_document
        running_exchange.connect()

    # The last test's page is gone, but its call may still be ending.
    running_exchange.wait(over())
    running_exchange.do(fresh)
    return running_exchange


def open_phone(tab: Tab, exchange: Exchange, path: str = "/phone") -> Tab:
    """Load the telephone and wait for its directory."""
    tab.page.goto(exchange.url + path)
    tab.until("document.querySelectorAll('#directory .entry').length === 2")
    return tab


def call(tab: Tab, exchange: Exchange, name: str = "Rosa") -> Tab:
    """Call somebody of the directory and wait until they are on the line."""
    tab.page.click(f"text={name}")
    tab.until("phone.phase === 'in_call'")
    tab.wait(lambda: len(exchange.phone.of("media")) > 10, "the stream flows")
    return tab


def test_microphone_arrives_as_a_telephones_sound(new_tab: MakeTab, exchange: Exchange) -> None:
    """A 1 kHz tone at 0.4 of full scale reaches the server as 1 kHz mu-law of that level, 50 pieces a second."""
    tab = call(open_phone(new_tab(scripted=False), exchange, "/phone?raw=1"), exchange)
    level = 0.4 * 32_768 / math.sqrt(2)

    def latest() -> array[int]:
        return decode_samples(exchange.said()[-4_000:], PCMU)

    # A machine that runs several test suites tears a hole now and then: half a second without one is looked for.
    tab.wait(lambda: abs(rms(latest()) / level - 1) < 0.05, f"level {level:.0f}")
    assert abs(pitch_hz(latest()) - 1_000) <= 20
    media = exchange.phone.of("media")
    assert {len(base64.b64decode(message["media"]["payload"])) for message in media} == {160}
    assert media[-1]["media"]["timestamp"] == str(20 * len(media))
    start = exchange.phone.of("start")[0]["start"]
    assert start["mediaFormat"] == {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    path, form, signed = exchange.phone.forms[0]
    assert (path, signed, form["To"], form["CallStatus"]) == ("/voice", True, ROSA.number, "ringing")
    assert tab.faults == []


def test_caller_hears_the_line_at_its_level(tab: Tab, exchange: Exchange) -> None:
    """A 440 Hz tone at 0.3 of full scale is played as such, and the delay is shown."""
    call(open_phone(tab, exchange), exchange)
    tab.utter(0.5)
    tab.wait(lambda: exchange.said()[-1_600:] == b"\xff" * 1_600 or len(set(exchange.said()[-1_600:])) < 20, "quiet")
    exchange.play(tone(440, 2.0))
    level = 0.3 / math.sqrt(2)
    tab.until(f"(({{rms, hz}}) => Math.abs(rms / {level} - 1) < 0.06 && Math.abs(hz - 440) < 12)(({HEAR_LINE})())", 4)
    tab.until(f"({HEAR_LINE})().rms < 0.01", 4)
    # None on a quiet machine; one that runs several test suites holds the page up now and then.
    assert tab.js("phone.handset.stats.gaps") <= 2
    assert tab.js("phone.handset.stats.queuedMs") < 400
    tab.until("document.getElementById('seen-delay').textContent.endsWith(' ms')")
    assert tab.text("#seen-received") == "2.0 s"


def test_clear_empties_the_queues_of_twilio_and_of_the_page(tab: Tab, exchange: Exchange) -> None:
    """Barge-in: ten seconds are queued, the server clears, and it is quiet at once; marks come back."""
    call(open_phone(tab, exchange), exchange)
    exchange.play(tone(440, 10.0))
    exchange.do(lambda: exchange.phone.sockets[-1].tell(event="mark", mark={"name": "g1:1"}))
    tab.until(f"({HEAR_LINE})().rms > 0.2")
    tab.js(f"""(() => {{ const from = performance.now();
      const look = () => {{
        if (({HEAR_LINE})().rms < 0.01) window.fellSilent = performance.now() - from; else setTimeout(look, 10); }};
      look(); }})()""")
    exchange.do(lambda: exchange.phone.sockets[-1].tell(event="clear"))
    silent_ms = tab.until("window.fellSilent")
    # 93 ms of it are the analyser's own window; the rest is the way, the fade and the device's buffer.
    assert silent_ms < 350
    tab.until("document.getElementById('seen-clears').textContent === '1'")
    tab.until("document.getElementById('seen-marks').textContent === '1 / 1'")
    assert [message["mark"]["name"] for message in exchange.phone.of("mark")] == ["g1:1"]
    assert "s of speech dropped" in tab.text("#wire")
    assert tab.text("#seen-queued") == "0.0 s"


def test_keys_arrive_from_the_pad_and_from_the_keyboard(tab: Tab, exchange: Exchange) -> None:
    """Clicked and typed keys are `dtmf` messages in order, and shown; a shortcut that is off does nothing."""
    call(open_phone(tab, exchange), exchange)
    tab.page.click("#pad [data-key='1']")
    tab.page.keyboard.press("2")
    tab.page.keyboard.press("#")
    tab.page.click("#pad [data-key='*']")
    tab.wait(lambda: len(exchange.phone.of("dtmf")) == 4, "four keys")
    assert [message["dtmf"]["digit"] for message in exchange.phone.of("dtmf")] == ["1", "2", "#", "*"]
    assert tab.text("#pressed") == "12#*"
    tab.page.uncheck("#shortcuts")
    tab.page.keyboard.press("7")
    tab.page.click("#pad [data-key='0']")
    tab.wait(lambda: len(exchange.phone.of("dtmf")) == 5, "the fifth key")
    assert exchange.phone.of("dtmf")[-1]["dtmf"]["digit"] == "0"


def test_caller_hangs_up(tab: Tab, exchange: Exchange) -> None:
    """The server gets `stop`, the microphone is let go, and the next call can be made by the keyboard alone."""
    call(open_phone(tab, exchange), exchange)
    track = "phone.handset.microphone.stream.getAudioTracks()[0]"
    tab.js(f"window.track = {track}")
    tab.page.wait_for_timeout(500)  # the guard against double clicks
    tab.page.click("#hang-up")
    tab.wait(lambda: exchange.phone.of("stop"), "stop")
    assert tab.text("#outcome") == "You hung up."
    tab.until("window.track.readyState === 'ended'")
    tab.until("document.getElementById('wire').textContent.includes('Ended by the caller: completed')")
    assert tab.js("document.activeElement.id") == "call"
    tab.page.fill("#number", "001 (500) 555-0107")
    tab.page.keyboard.press("Enter")
    tab.until("phone.phase === 'in_call' && document.activeElement.id === 'hang-up'")
    assert tab.text("#who") == TOM.name
    assert [form["To"] for path, form, _ in exchange.phone.forms if path == "/voice"] == [ROSA.number, TOM.number]


def test_agent_hangs_up(tab: Tab, exchange: Exchange) -> None:
    """The server closes the stream: the page says so and is ready again; a page that closes hangs up."""
    call(open_phone(tab, exchange), exchange)
    exchange.do(lambda: exchange.phone.sockets[-1].close(1000))
    tab.until("phone.phase === 'idle'")
    assert tab.text("#outcome") == "The agent hung up."
    assert tab.text("#state-words") == "Not in a call"
    call(tab, exchange, "Tom")
    tab.page.goto("about:blank")
    tab.wait(lambda: exchange.phone.of("stop"), "stop")
    tab.wait(lambda: exchange.softphone.open_phones == 0, "the line is free")


def test_server_that_refuses_is_told_in_words(tab: Tab, exchange: Exchange) -> None:
    """A webhook that fails, a number that is turned away, a stream that is refused, a server that is not there."""

    def after_calling(sentence: str) -> str:
        tab.page.click("text=Tom")
        tab.until("phone.phase !== 'idle'")
        tab.until(f"phone.phase === 'idle' && document.getElementById('telephone').textContent.includes('{sentence}')")
        return tab.text("#alerts")

    open_phone(tab, exchange)
    exchange.phone.document = lambda phone: "<Response><Reject reason='busy'/></Response>"
    assert "turned the call away" in after_calling("The number is busy.")
    exchange.phone.document = connect_document
    exchange.phone.behaviour = ("refuse",)
    assert "31920" in after_calling("The server refused the media stream.")
    exchange.phone.status = 403
    assert "TWILIO_AUTH_TOKEN" in after_calling("did not believe that Twilio called.")
    assert tab.text("#seen-faults") == "1"
    exchange.do(lambda: exchange.connect("http://127.0.0.1:9/voice"))
    assert "11200" in after_calling("did not answer Twilio.")


def test_call_works_without_a_microphone(new_tab: MakeTab, exchange: Exchange) -> None:
    """Permission refused, or not wanted: the line carries silence, and listening and keys work."""
    tab = open_phone(new_tab(scripted=False, allowed=False), exchange)
    call(tab, exchange)
    assert "The microphone is blocked for this page." in tab.text("#alerts")
    assert "listen and press keys" in tab.text("#alerts")
    assert set(exchange.said()) == {0xFF}
    assert tab.js("document.getElementById('mute').disabled")
    exchange.play(tone(440, 1.0))
    tab.until(f"({HEAR_LINE})().rms > 0.2")
    tab.page.keyboard.press("5")
    tab.wait(lambda: exchange.phone.of("dtmf"), "the key")
    tab.page.click("#hang-up")
    tab.until("phone.phase === 'idle'")
    tab.js("navigator.mediaDevices.getUserMedia = () => { window.asked = true; }; 0")
    tab.page.uncheck("#use-microphone")
    call(tab, exchange)
    assert tab.js("window.asked") is None and tab.text("#alerts") == ""


def test_microphone_given_after_hanging_up_is_let_go(tab: Tab, exchange: Exchange) -> None:
    """Hung up while the browser asks: nobody was called, and the permission that comes late opens nothing."""
    open_phone(tab, exchange)
    tab.js("""(() => { const give = navigator.mediaDevices.getUserMedia;
      navigator.mediaDevices.getUserMedia = () => new Promise((done) => { window.allow = async () => {
        const stream = await give(); window.track = stream.getAudioTracks()[0]; done(stream); }; }); })()""")
    tab.page.click("text=Rosa")
    tab.until("phone.phase === 'waiting' && Boolean(window.allow)")
    tab.until("document.getElementById('notice').textContent.includes('asking for the microphone')")
    tab.page.click("#hang-up")
    tab.js("allow()")
    tab.until("window.track?.readyState === 'ended'")
    assert tab.js("phone.phase") == "idle" and exchange.phone.forms == []


def test_mute_sends_silence(tab: Tab, exchange: Exchange) -> None:
    """Muted, the stream goes on with silence; unmuted, the voice is back."""
    call(open_phone(tab, exchange), exchange)
    tab.js("speak(true)")

    def level() -> float:
        return rms(decode_samples(exchange.said()[-1_600:], PCMU))

    tab.wait(lambda: level() > 4_000, "the voice")
    tab.page.click("#mute")
    tab.wait(lambda: level() == 0, "silence")
    assert tab.page.get_attribute("#mute", "aria-pressed") == "true"
    tab.page.click("#mute")
    tab.wait(lambda: level() > 4_000, "the voice again")


def test_lost_line_and_missing_demo_are_told(tab: Tab, exchange: Exchange) -> None:
    """A socket that dies, a server that does not say where the line is, and a number nobody can have."""
    call(open_phone(tab, exchange), exchange)
    tab.js("phone.line.socket.close()")
    tab.until("document.getElementById('alerts').textContent.includes('The line went dead.')")
    tab.page.route("**/phone/line", lambda route: route.abort())
    tab.page.click("#call")
    tab.until("document.getElementById('alerts').textContent.includes('cannot find its telephone line')")
    tab.page.fill("#number", "12")
    tab.page.click("#call")
    tab.until("document.getElementById('alerts').textContent.includes('no telephone number')")
    assert tab.js("phone.phase") == "idle"


def test_page_may_connect_to_its_line_and_nowhere_else(tab: Tab, exchange: Exchange) -> None:
    """The policy names the line's address; another page of this computer gets neither the secret nor a line."""
    answer = tab.page.goto(f"{exchange.url}/phone")
    policy = answer.headers["content-security-policy"]
    assert f"connect-src 'self' {exchange.softphone.url};" in policy and "unsafe" not in policy
    line = tab.page.request.get(f"{exchange.url}/phone/line")
    assert line.json()["secret"] == exchange.softphone.secret and line.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in line.headers
    for path in ("/phone", "/phone/line"):
        assert tab.page.request.get(exchange.url + path, headers={"Host": "evil.example"}).status == 404
    cross = tab.page.request.get(f"{exchange.url}/phone/line", headers={"Sec-Fetch-Site": "cross-site"})
    assert cross.status == 403
    refused = """([url, secret]) => new Promise((done) => { const s = new WebSocket(url, ['softphone', secret]);
      s.onopen = () => done('open'); s.onerror = () => done('refused'); })"""
    assert tab.page.evaluate(refused, [exchange.softphone.url, "x" * 32]) == "refused"
    assert tab.page.evaluate(refused, [exchange.softphone.url, exchange.softphone.secret]) == "open"
    tab.page.goto(exchange.url.replace("127.0.0.1", "localhost") + "/client/icon.svg")
    assert tab.page.evaluate(refused, [exchange.softphone.url, exchange.softphone.secret]) == "refused"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_has_no_accessibility_fault(new_tab: MakeTab, exchange: Exchange, axe: str, scheme: str) -> None:
    """axe-core, WCAG 2.0-2.2 A and AA and best practice: nothing found, idle, in a call, in trouble, at 375 px."""
    tab = open_phone(new_tab(color_scheme=scheme, reduced_motion="reduce"), exchange)
    tab.js(axe)

    def faults() -> list[str]:
        result: dict[str, Any] = tab.js("axe.run(document, {resultTypes: ['violations', 'incomplete']})")
        return [f"{kind} {rule['id']} {[n['target'] for n in rule['nodes']]} {rule['nodes'][0]['any'][:1]}"
                for kind in ("violations", "incomplete") for rule in result[kind]]

    assert faults() == []
    call(tab, exchange)
    tab.page.keyboard.press("5")
    tab.page.click("#mute")
    assert faults() == []
    tab.page.set_viewport_size({"width": 375, "height": 740})
    assert faults() == []
    assert tab.js("document.documentElement.scrollWidth") <= 375
    assert tab.js("document.getElementById('hang-up').getBoundingClientRect().bottom") <= 740
    exchange.do(lambda: exchange.phone.sockets[-1].close(1011))
    tab.until("document.querySelector('.problem')")
    tab.js("document.getElementById('wire').scrollTop = 0")  # of a line cut by the edge axe cannot tell the contrast
    assert faults() == []
    small = """[...document.querySelectorAll('button, input:not([type=checkbox]), label.check')]
      .filter(n => n.offsetParent && n.getBoundingClientRect().height < 44).map(n => n.outerHTML)"""
    assert tab.js(small) == []
