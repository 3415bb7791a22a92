"""The talk page in a real Chromium: sound both ways, words, keys, trouble."""
from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Tab
    from fake_gateway import FakeGateway

pytestmark = pytest.mark.browser
MakeTab = Callable[..., "Tab"]

# Level and pitch of what the speaker graph plays.
HEAR_SPEAKER = """() => {
  const a = voice.analyser, wave = new Float32Array(a.fftSize), bins = new Float32Array(a.frequencyBinCount);
  a.getFloatTimeDomainData(wave); a.getFloatFrequencyData(bins);
  return { rms: Math.sqrt(wave.reduce((s, x) => s + x * x, 0) / wave.length),
    hz: bins.indexOf(Math.max(...bins)) * a.context.sampleRate / a.fftSize };
}"""


def test_microphone_arrives_as_24_khz_sound_of_the_right_level(new_tab: MakeTab, gateway: FakeGateway) -> None:
    """A 1 kHz tone at 0.4 of full scale reaches the server as 1 kHz, RMS 9,268, in real time."""
    tab = new_tab(scripted=False).open("?raw=1#token=any").start()
    tab.wait(lambda: len(gateway.latest.heard) > 36_000)
    from fake_gateway import RATE, peak_hz
    talk = gateway.latest
    began, before = time.monotonic(), len(talk.heard)
    tab.wait(lambda: len(talk.heard) > before + 36_000)
    seconds, samples = time.monotonic() - began, len(talk.heard) - before
    assert abs(peak_hz(talk.heard) - 1000) <= 20
    assert 8_500 < talk.tail_rms() < 10_000
    # What was kept from before the socket was open is past; a busy machine may be a few pieces late.
    assert 0.8 < samples / RATE / seconds < 1.3
    assert tab.faults == []


def test_spoken_turn_is_answered_aloud_with_captions_and_a_delay(tab: Tab, gateway: FakeGateway) -> None:
    """Speech, silence: the whole answer is played at its level, both sides are captioned, the delay is shown."""
    gateway.plan.transcript_late = True
    tab.open().start()
    tab.utter()
    tab.until("voice.stats.audible > 12000")
    heard = tab.js(HEAR_SPEAKER)
    assert abs(heard["hz"] - 440) < 12
    assert abs(heard["rms"] - 0.3 / math.sqrt(2)) < 0.03
    tab.until("voice.stats.played === 36000 && voice.activity === 'listening'")
    assert tab.js("voice.stats.underruns") == 0
    assert tab.js("[...document.querySelectorAll('#captions .said')].map(n => n.textContent)") == [
        "What time do you open tomorrow?", "I heard you."], "your words come first, though they came last"
    assert tab.text("#latency").endswith(" ms") and 0 < int(tab.text("#latency").split()[0]) < 2000
    assert tab.js("document.getElementById('captions').getAttribute('aria-live')") == "off"
    assert tab.faults == []


def test_interruption_stops_the_sound_and_says_how_much_was_heard(tab: Tab, gateway: FakeGateway) -> None:
    """Barge-in: silence at once, a truncate within what was played, late pieces dropped, the reply marked."""
    gateway.plan.reply_seconds, gateway.plan.reply_text = 20.0, "word " * 60
    tab.open().start()
    tab.utter()
    tab.until("voice.stats.played > 24000")
    gateway.plan.reply_seconds, gateway.plan.reply_text = 1.5, "Yes?"
    tab.js("speak(true)")
    tab.until("voice.cuts === 1 && voice.stats.queuedMs === 0")
    played_ms = tab.js("voice.stats.played") / 24
    cut = tab.wait(lambda: [e for e in gateway.latest.received if e["type"] == "conversation.item.truncate"])[0]
    assert 1000 < cut["audio_end_ms"] <= played_ms
    assert played_ms - cut["audio_end_ms"] < 250, "played minus what the device still held"
    late = {"item_id": cut["item_id"], "content_index": 0, "delta": "AAAA" * 4000}
    gateway.call(lambda: gateway.latest.emit("response.audio.delta", **late))
    tab.page.wait_for_timeout(150)
    assert tab.js("voice.stats.played") / 24 == played_ms
    tab.until("document.querySelector('.turn.agent .mark')?.textContent === 'Interrupted'")
    assert tab.js("document.querySelector('.turn.agent .unheard').textContent.length") > 100
    tab.js("speak(false)")
    tab.until("document.getElementById('captions').textContent.includes('Yes?')")


def test_typing_works_without_any_microphone(new_tab: MakeTab, gateway: FakeGateway) -> None:
    """Text connects by itself, never asks for the microphone, and the answer is audible."""
    never = "navigator.mediaDevices.getUserMedia = () => { window.asked = true; }"
    tab = new_tab(scripted=False, allowed=False, script=never)
    tab.open()
    tab.page.fill("#text", "<b>hello</b>")
    tab.page.keyboard.press("Enter")
    tab.until("voice.stats.audible > 6000")
    assert abs(tab.js(HEAR_SPEAKER)["rms"] - 0.3 / math.sqrt(2)) < 0.03
    assert gateway.latest.kinds() == ["conversation.item.create", "response.create"]
    assert len(gateway.latest.heard) == 0 and tab.js("window.asked") is None
    said = "[...document.querySelectorAll('#captions .said')].map(n => n.textContent)"
    tab.until(f"{said}.length === 2 && document.querySelectorAll('#captions b').length === 0")
    assert tab.js(said) == ["<b>hello</b>", "You typed: <b>hello</b>"], "markup is shown, not obeyed"
    tab.until("document.getElementById('activity-words').textContent.startsWith('Ready')")
    assert tab.text("#start").strip() == "Use microphone"


def test_typing_while_the_agent_talks_takes_its_place(tab: Tab, gateway: FakeGateway) -> None:
    """The answer under way is cancelled and truncated before the new line is sent."""
    gateway.plan.piece_wait_s = 0.1
    tab.open()
    tab.page.click("text=test long answer")
    tab.until("voice.stats.played > 12000")
    tab.js("voice.say('stop that')")
    tab.wait(lambda: gateway.latest.kinds().count("response.create") == 2)
    assert gateway.latest.kinds() == ["conversation.item.create", "response.create", "response.cancel",
                                      "conversation.item.truncate", "conversation.item.create", "response.create"]
    tab.until("document.getElementById('captions').textContent.includes('You typed: stop that')")


def test_answer_refused_for_one_still_ending_is_asked_for_once_more(tab: Tab, gateway: FakeGateway) -> None:
    """`conversation_already_has_active_response` repeats response.create once, and shows no error."""
    tab.open()
    tab.js("voice.startText()")
    tab.until("voice.state === 'live'")
    tab.js("voice.say('one')")
    tab.wait(lambda: gateway.latest.kinds().count("response.create") == 1)
    tab.until("voice.activity === 'speaking'")
    busy = {"type": "invalid_request_error", "code": "conversation_already_has_active_response", "message": "busy"}
    for _ in range(2):
        gateway.call(lambda: gateway.latest.emit("error", error=busy))
    tab.wait(lambda: gateway.latest.kinds().count("response.create") == 2)
    tab.page.wait_for_timeout(400)
    assert gateway.latest.kinds().count("response.create") == 2
    assert tab.page.query_selector(".problem") is None


def test_space_talks_and_letting_go_sends_the_turn(tab: Tab, gateway: FakeGateway) -> None:
    """Push to talk by keyboard alone: nothing unless held; then sound, one commit, one response.create."""
    tab.open()
    tab.page.focus("#ptt")
    tab.page.keyboard.press("Enter")
    tab.page.focus("#start")
    tab.page.keyboard.press("Enter")
    tab.until("voice.state === 'live' && document.activeElement.id === 'hold'")
    tab.page.wait_for_timeout(200)
    talk = gateway.latest
    assert len(talk.heard) == 0
    tab.js("speak(true)")
    tab.page.keyboard.down("Space")
    tab.page.wait_for_timeout(500)
    assert tab.page.get_attribute("#hold", "aria-pressed") == "true"
    tab.page.keyboard.up("Space")
    tab.wait(lambda: "response.create" in talk.kinds())
    assert talk.kinds() == ["session.update", "input_audio_buffer.clear", "input_audio_buffer.commit",
                            "response.create"]
    assert talk.received[0]["session"] == {"turn_detection": None}
    assert 9_000 < len(talk.heard) < 26_000 and talk.tail_rms(0.2) > 5_000
    sent = len(talk.heard)
    tab.page.wait_for_timeout(150)
    assert len(talk.heard) == sent
    tab.page.keyboard.press("Space")
    tab.until("document.getElementById('notice').textContent.includes('while you speak')")
    assert talk.kinds()[-1] == "input_audio_buffer.clear", "a slip of the finger asks for nothing"
    tab.page.click("#ptt")
    tab.wait(lambda: talk.kinds()[-1] == "session.update")
    assert talk.received[-1]["session"] == {"turn_detection": {"type": "server_vad"}}, "the agent's own setting is back"


def test_push_to_talk_works_where_the_owner_keeps_turn_detection(tab: Tab, gateway: FakeGateway) -> None:
    """A refused session.update shows no error; letting go sends the silence that ends the turn."""
    gateway.plan.owner_keeps_turns = True
    tab.open().start()
    tab.page.click("#ptt")
    tab.js("speak(true)")
    tab.page.hover("#hold")
    tab.page.mouse.down()
    tab.page.wait_for_timeout(400)
    tab.page.mouse.up()
    tab.until("voice.stats.audible > 1000")
    assert gateway.latest.tail_rms(0.3) == 0 and "input_audio_buffer.commit" not in gateway.latest.kinds()
    assert tab.page.query_selector(".problem") is None


def test_muting_sends_silence_and_shortcuts_can_be_switched_off(tab: Tab, gateway: FakeGateway) -> None:
    """M mutes: the server hears exact zeros, the stream goes on; with shortcuts off M does nothing."""
    tab.open().start()
    tab.page.uncheck("#keys")
    tab.page.keyboard.press("m")
    assert tab.js("voice.muted") is False
    tab.page.check("#keys")
    tab.page.keyboard.press("m")
    assert tab.page.get_attribute("#mute", "aria-pressed") == "true"
    tab.js("speak(true)")
    before = len(gateway.latest.heard)
    tab.wait(lambda: len(gateway.latest.heard) > before + 24_000)
    assert gateway.latest.tail_rms() == 0
    tab.until("document.getElementById('notice').textContent.includes('muted')")


def test_escape_stops_the_answer(tab: Tab, gateway: FakeGateway) -> None:
    """Esc silences the agent and tells the server how much was heard."""
    tab.open()
    tab.page.click("text=test long answer")
    tab.until("voice.stats.played > 6000")
    tab.page.keyboard.press("Escape")
    tab.until("voice.stats.queuedMs === 0 && voice.cuts === 1")
    tab.wait(lambda: "conversation.item.truncate" in gateway.latest.kinds())
    tab.until("document.getElementById('interrupt').hidden")
    assert tab.js("voice.state") == "live" and tab.js("voice.activity") == "listening"


def test_lost_connection_is_opened_again_with_its_conversation(tab: Tab, gateway: FakeGateway) -> None:
    """A socket that dies without a close: countdown, live again, same conversation, captions kept."""
    tab.open().start()
    tab.utter()
    tab.until("document.querySelectorAll('.turn').length === 2")
    tab.js("window.states = []; voice.on('state', e => states.push(e.detail)); 0")
    conversation = tab.js("voice.conversationId")
    gateway.call(gateway.latest.drop)
    tab.until("states.some(s => s.state === 'reconnecting') && voice.state === 'live'")
    first = tab.js("states[0]")
    assert first["reason"] == "lost" and 150 < first["retryInMs"] < 400
    assert len(gateway.sessions) == 2
    assert gateway.latest.get_argument("conversation_id") == conversation
    assert tab.js("document.querySelectorAll('.turn').length") == 2
    heard = len(gateway.latest.heard)
    tab.wait(lambda: len(gateway.latest.heard) > heard + 4800)


def test_full_server_is_tried_again_later_and_at_once_on_request(tab: Tab, gateway: FakeGateway) -> None:
    """1013 counts down visibly; Try now does not wait."""
    gateway.plan.refuse = (1013, "Server at capacity")
    tab.open()
    tab.page.click("#start")
    tab.until("voice.state === 'reconnecting'")
    assert "The server is full." in tab.text("#reconnect") and "Trying again in" in tab.text("#countdown")
    gateway.plan.refuse = None
    tab.page.click("#retry")
    tab.until("voice.state === 'live'", 1.5)
    assert tab.page.is_hidden("#reconnect")


def test_device_pickers_have_names_and_switch_live(new_tab: MakeTab, gateway: FakeGateway) -> None:
    """Names appear after permission; another microphone takes over without a new connection."""
    tab = new_tab(scripted=False).open("?raw=1#token=any").start()
    tab.until("document.getElementById('microphone').length > 1")
    tab.page.select_option("#microphone", index=1)
    before = len(gateway.latest.heard)
    tab.wait(lambda: len(gateway.latest.heard) > before + 24_000)
    assert gateway.latest.tail_rms(0.2) > 100 and len(gateway.sessions) == 1


def test_another_voice_reopens_the_same_conversation(tab: Tab, gateway: FakeGateway) -> None:
    """A session cannot change its voice: the page connects anew with the voice and the conversation."""
    tab.open().start()
    conversation = tab.js("voice.conversationId")
    tab.page.select_option("#voice", "coral")
    tab.wait(lambda: len(gateway.sessions) == 2)
    tab.until("voice.state === 'live'")
    assert gateway.latest.get_argument("voice") == "coral"
    assert gateway.latest.get_argument("conversation_id") == conversation


def test_simulated_agent_is_announced_and_can_hang_up(tab: Tab, gateway: FakeGateway) -> None:
    """Banner, badge and phrases; a normal close ends quietly, and Start goes on with the conversation."""
    tab.open()
    assert "no key, no cost" in tab.text("#simulated") and tab.page.is_visible("#simulated-badge")
    tab.page.click("text=hang up")
    tab.until("voice.state === 'ended'")
    assert "ended the conversation" in tab.text("#notice")
    assert tab.page.query_selector(".problem") is None
    conversation = tab.js("voice.conversationId")
    tab.start()
    assert gateway.latest.get_argument("conversation_id") == conversation
    tab.page.click("#fresh")
    tab.until("voice.state === 'ended' && voice.conversationId === ''")


def test_real_agent_has_no_banner(tab: Tab, gateway: FakeGateway) -> None:
    """Without `simulated` there is no banner and no phrase, and the privacy line speaks of the real thing."""
    gateway.plan.simulated = False
    tab.open()
    assert not any(tab.page.is_visible(s) for s in ("#simulated", "#simulated-badge", "#phrases"))
    assert "sound is never stored" in tab.text("#privacy")


def test_last_words_before_a_close_are_heard_to_the_end(tab: Tab, gateway: FakeGateway) -> None:
    """Sound comes faster than real time: a server that says goodbye and closes is not cut off."""
    tab.open()
    tab.page.click("#phrases >> text=hello")
    tab.until("voice.stats.played + 24 * voice.stats.queuedMs > 35900")  # all 36,000 samples have come
    gateway.call(lambda: gateway.latest.close(1000))
    tab.until("voice.state === 'ended'")
    assert tab.js("voice.stats.played") < 30_000
    tab.until("voice.stats.played === 36000")


def test_inspector_lists_filters_and_sums_up_sound(tab: Tab, gateway: FakeGateway) -> None:
    """Folded at first; both directions; sound is one line; the filter narrows; the list is bounded."""
    tab.open().start()
    tab.utter()
    tab.until("voice.stats.played === 36000")
    assert tab.js("document.querySelectorAll('#events details').length") == 0
    tab.page.click("#inspector > summary")
    rows = "[...document.querySelectorAll('#events summary')].map(n => n.textContent)"
    tab.until(f"{rows}.some(t => t.includes('response.done'))")
    assert not any("audio.delta" in row for row in tab.js(rows))
    tab.page.check("#show-audio")
    tab.until(f"{rows}.some(t => t.includes('response.audio.delta'))")
    sound = [row for row in tab.js(rows) if "response.audio.delta" in row]
    assert len(sound) == 1 and "× 8 · 1.5 s" in sound[0]
    tab.page.fill("#filter", "speech_st")
    tab.until(f"{rows}.length === 2")
    tab.page.click("#events summary >> nth=0")
    assert '"item_id"' in tab.text("#events pre")
    tab.page.fill("#filter", "")
    def flood() -> None:
        for _ in range(900):
            gateway.latest.emit("rate_limits.updated", rate_limits=[])
    gateway.call(flood)
    tab.until(f"{rows}.length === 600")


def test_page_asks_for_a_token_and_takes_it_out_of_the_address(tab: Tab, gateway: FakeGateway) -> None:
    """No token: a sentence and a field. A token from the address is not left in it, and is not sent in a URL."""
    tab.open("")
    assert "Sign in" in tab.text("#sign-in") and tab.page.is_disabled("#start") and tab.page.is_disabled("#text")
    tab.page.fill("#token", "pasted")
    tab.page.click("text=Use token")
    tab.until("!document.getElementById('start').disabled")
    tab.start()
    assert gateway.latest.token == "pasted" and gateway.latest.get_argument("token", "") == ""
    tab.page.goto("about:blank")
    tab.open("#token=from-address")
    assert tab.js("location.hash") == "" and tab.js("voice.options.token()") == "from-address"


def test_refused_token_asks_again(tab: Tab, gateway: FakeGateway) -> None:
    """401 from the directory: the sign-in field says why."""
    gateway.plan.valid_tokens = {"good"}
    tab.open("#token=old")
    assert "expired" in tab.text("#sign-in-words")
    tab.page.fill("#token", "good")
    tab.page.keyboard.press("Enter")
    tab.until("!document.getElementById('start').disabled")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_has_no_accessibility_fault(new_tab: MakeTab, gateway: FakeGateway, axe: str, scheme: str) -> None:
    """axe-core, WCAG 2.0-2.2 A and AA and best practice: nothing found, idle, live, in trouble, and on a phone."""
    tab = new_tab(color_scheme=scheme, reduced_motion="reduce").open()
    tab.js(axe)

    def faults() -> list[str]:
        result: dict[str, Any] = tab.js("axe.run(document, {resultTypes: ['violations', 'incomplete']})")
        return [f"{kind} {rule['id']} {[n['target'] for n in rule['nodes']]} {rule['nodes'][0]['any'][:1]}"
                for kind in ("violations", "incomplete") for rule in result[kind]]

    assert faults() == []
    tab.start()
    tab.utter()
    tab.until("voice.stats.played === 36000")
    tab.page.click("#ptt")
    tab.page.click("#inspector > summary")
    tab.until("document.querySelectorAll('#events details').length > 5")
    assert faults() == []
    tab.page.set_viewport_size({"width": 375, "height": 740})
    assert faults() == []
    assert tab.js("document.documentElement.scrollWidth") <= 375
    gateway.call(lambda: gateway.latest.close(4029, "Budget exhausted"))
    tab.until("document.querySelector('.problem')")
    assert faults() == []
    small = """[...document.querySelectorAll('button, select, input:not([type=checkbox]), label.check')]
      .filter(n => n.offsetParent && n.getBoundingClientRect().height < 44).map(n => n.outerHTML)"""
    assert tab.js(small) == []
