"""The browser client library: every trouble in words, tokens, both dialects, bounds, types."""
from __future__ import annotations

import filecmp
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Tab
    from fake_gateway import FakeGateway

pytestmark = pytest.mark.browser
MakeTab = Callable[..., "Tab"]
WEB = Path(__file__).resolve().parents[2] / "web"

# Contract, section 4: code, reason text, end reason, and whether the client tries again by itself.
CLOSES = [
    (1000, "", "agent_ended", False), (1001, "", "lost", True), (1006, "", "lost", True),
    (1009, "Message too big", "client_error", False), (1011, "OpenAI API key not configured", "key_missing", False),
    (1011, "Internal server error", "internal", True), (1012, "Server restarting, please reconnect", "drain", True),
    (1013, "Server at capacity", "capacity", True), (4000, "Missing token or agent_id", "bad_request", False),
    (4001, "Unauthorized", "unauthorized", False), (4004, "Agent not found", "not_found", False),
    (4004, "Conversation not found", "not_found", False), (4008, "Session time limit", "time_limit", False),
    (4008, "Idle timeout", "idle", False), (4009, "Invalid message", "client_error", False),
    (4029, "Too many sessions", "too_many", False), (4029, "Budget exhausted", "budget", False),
    (4502, "Voice service unavailable", "upstream", False), (4999, "Something new", "closed", False),
    (1002, "", "protocol", False),
]
MICROPHONE = [
    ("NotAllowedError", "Permission denied", "mic_blocked"),
    ("NotAllowedError", "Permission dismissed", "mic_dismissed"),
    ("NotAllowedError", "Permission denied by system", "mic_blocked_by_system"), ("NotFoundError", "", "no_mic"),
    ("NotReadableError", "", "mic_busy"), ("AbortError", "", "mic_failed"), ("SecurityError", "", "mic_forbidden"),
    ("OverconstrainedError", "", "mic_gone"), ("InvalidStateError", "", "page_asleep"), ("TypeError", "", "insecure"),
]


def test_every_close_code_has_words_and_advice_of_its_own(tab: Tab) -> None:
    """Each row of the contract's table becomes a sentence, an advice, its end reason, and the right next step."""
    tab.open()
    seen = set()
    for status, reason, code, again in CLOSES:
        words = tab.words("closeWords", status, reason)
        assert words["code"] == code and (words["next"] == "retry") is again, words
        assert str(status) in words["detail"]
        assert len(words["message"]) > 15 and len(words["advice"]) > 15 and str(status) not in words["message"]
        seen.add((words["code"], words["message"]))
    assert len(seen) == len(CLOSES)


@pytest.mark.parametrize(("status", "reason", "words"), [
    (4029, "Budget exhausted", "budget for talking is used up"), (4004, "Agent not found", "does not exist"),
    (4502, "Voice service unavailable", "not answering"), (1011, "OpenAI API key not configured", "no OpenAI key")])
def test_refusal_is_shown_once_in_plain_words(
        tab: Tab, gateway: FakeGateway, status: int, reason: str, words: str) -> None:
    """The close's words win over the error event before it; the code is kept in the detail; text is spared."""
    gateway.plan.refuse, gateway.plan.refuse_with_error_event = (status, reason), True
    tab.open()
    tab.page.click("#start")
    tab.until("voice.state === 'ended' && document.querySelector('.problem')")
    tab.page.wait_for_timeout(400)
    assert words in tab.text(".problem .what")
    tab.page.click(".problem summary")
    assert str(status) in tab.text(".problem code")
    assert len(gateway.sessions) == 1


def test_error_event_without_a_close_is_shown_and_the_conversation_goes_on(tab: Tab, gateway: FakeGateway) -> None:
    """`test error` shows what the server says; harmless errors show nothing."""
    tab.open()
    tab.page.click("text=test error")
    tab.until("document.querySelector('.problem')")
    assert "This is a test error." in tab.text(".problem .what")
    assert tab.js("voice.state") == "live"
    tab.page.click("text=Dismiss")
    gateway.call(lambda: gateway.latest.emit("error", error={"code": "response_cancel_not_active", "message": "no"}))
    tab.page.wait_for_timeout(400)
    assert tab.page.query_selector(".problem") is None


def test_every_microphone_error_has_words(tab: Tab) -> None:
    """What getUserMedia throws becomes a sentence and an advice."""
    tab.open()
    for name, message, code in MICROPHONE:
        words = tab.words("microphoneWords", {"name": name, "message": message})
        assert words["code"] == code and name in words["detail"] and name not in words["message"] + words["advice"]


def test_blocked_microphone_is_explained_and_typing_still_works(new_tab: MakeTab) -> None:
    """A real refusal by the browser ends the start in words; a typed line then connects."""
    tab = new_tab(scripted=False, allowed=False).open()
    tab.page.click("#start")
    tab.until("document.querySelector('.problem')")
    assert "microphone is blocked" in tab.text(".problem .what") and "type" in tab.text(".problem .advice")
    tab.page.fill("#text", "hello")
    tab.page.keyboard.press("Enter")
    tab.until("voice.stats.audible > 1000 && !document.querySelector('.problem')")


def test_stopping_while_the_browser_asks_leaves_nothing_open(new_tab: MakeTab, gateway: FakeGateway) -> None:
    """stop() during the permission question: the late microphone is closed again and nothing connects."""
    tab = new_tab(script="""{ const ask = navigator.mediaDevices.getUserMedia;
      navigator.mediaDevices.getUserMedia = () => new Promise((give) => { window.allow = async () => {
        window.stream = await ask(); give(window.stream); }; }); }""").open()
    tab.page.click("#start")
    tab.until("!!window.allow")
    tab.page.click("#end")
    tab.js("allow()")
    tab.until("window.stream && window.stream.getTracks()[0].readyState === 'ended'")
    assert tab.js("voice.state") == "ended" and gateway.sessions == []


def test_token_that_runs_out_is_replaced_in_the_live_session(tab: Tab, gateway: FakeGateway) -> None:
    """`token_expiring` asks the page for a token, sends session.refresh, and shows it nowhere."""
    tab.open().start()
    tab.page.click("#inspector > summary")
    tab.js("voice.options.token = async () => 'the-second-token'; 0")
    gateway.call(lambda: gateway.latest.emit("gateway.notice", code="token_expiring", message="soon"))
    tab.wait(lambda: "session.refresh" in gateway.latest.kinds())
    assert gateway.latest.received[-1] == {"type": "session.refresh", "token": "the-second-token"}
    tab.until("document.getElementById('events').textContent.includes('session.refresh')")
    assert "the-second-token" not in tab.page.content()


def test_refused_token_is_tried_once_more_if_there_is_a_newer_one(tab: Tab, gateway: FakeGateway) -> None:
    """4001 in a live session: a different token reconnects; the same one ends in a request to sign in."""
    tab.open().start()
    tab.js("voice.options.token = () => 'newer'; 0")
    gateway.call(lambda: gateway.latest.close(4001, "Unauthorized"))
    tab.wait(lambda: len(gateway.sessions) == 2 and tab.js("voice.state") == "live")
    assert gateway.latest.token == "newer"
    gateway.call(lambda: gateway.latest.close(4001, "Unauthorized"))
    tab.until("voice.state === 'ended'")
    assert len(gateway.sessions) == 2
    assert "expired" in tab.text("#sign-in-words") and "Sign in again" in tab.text(".problem")


def test_gateway_notices_become_words(tab: Tab, gateway: FakeGateway) -> None:
    """Each notice of the contract is a sentence; an agent line that dropped leaves nothing to cancel."""
    tab.open().start()
    tab.js("window.notices = []; voice.on('notice', e => notices.push(e.detail)); 0")
    codes = ["reconnecting", "reconnected", "draining", "time_limit_soon", "budget_soon", "slow_reader"]
    for code in codes:
        gateway.call(lambda code=code: gateway.latest.emit("gateway.notice", code=code, message="x", retry_in_ms=400))
    tab.until(f"notices.length === {len(codes)}")
    notices = tab.js("notices")
    assert [n["code"] for n in notices] == codes and notices[0]["retryInMs"] == 400
    assert all(len(n["message"]) > 15 for n in notices)


def test_openai_names_and_session_shapes_are_understood(tab: Tab, gateway: FakeGateway) -> None:
    """At /v1/realtime: sound, captions, query token, and push to talk in the GA shape."""
    tab.open()
    tab.js("""import('/client/lib/voice-client.js').then(({ VoiceClient }) => {
      window.ga = new VoiceClient({ url: '/v1/realtime', token: () => 'secret', agentId: 'a1' });
      window.said = []; ga.on('caption', (e) => said.push(e.detail.text));
      return ga.startText(); })""")
    assert tab.js("ga.say('hi')") is True
    tab.until("ga.stats.audible > 3000 && said.includes('You typed: hi')")
    assert gateway.latest.get_argument("token") == "secret" and gateway.latest.get_argument("agent_id") == "a1"
    tab.js("ga.setPushToTalk(true)")
    tab.wait(lambda: "session.update" in gateway.latest.kinds())
    assert gateway.latest.received[-1]["session"] == {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
    tab.js("ga.stop()")
    tab.wait(lambda: gateway.latest.left)


def test_agent_that_may_not_be_interrupted_goes_on_talking(tab: Tab, gateway: FakeGateway) -> None:
    """With `interrupt_response: false` speech does not silence the agent."""
    gateway.plan.session = {"turn_detection": {"type": "server_vad", "interrupt_response": False}}
    gateway.plan.reply_seconds = 4.0
    tab.open().start()
    tab.js("voice.say('go')")
    tab.until("voice.stats.played > 12000")
    gateway.call(lambda: gateway.latest.emit("input_audio_buffer.speech_started", item_id="u9"))
    played = tab.js("voice.stats.played")
    tab.until(f"voice.stats.played > {played + 12000}")
    assert tab.js("voice.cuts") == 0


def test_stalled_link_drops_sound_instead_of_piling_it_up(tab: Tab, gateway: FakeGateway) -> None:
    """Beyond half a megabyte unsent nothing is queued; the page says so once."""
    tab.open().start()
    tab.js("""window.slow = 0; voice.on('notice', (e) => { if (e.detail.code === 'slow_link') slow++; });
      Object.defineProperty(WebSocket.prototype, 'bufferedAmount', { get: () => 600 * 1024, configurable: true }); 0""")
    tab.until("voice.stats.droppedPieces > 10")
    assert tab.js("slow") == 1


def test_browser_without_sound_output_still_converses(new_tab: MakeTab) -> None:
    """A resume() that never settles is waited for 1.5 s; then captions are announced to screen readers."""
    tab = new_tab(script="AudioContext.prototype.resume = () => new Promise(() => {});").open()
    tab.js("window.problems = []; voice.on('problem', e => problems.push(e.detail.code)); 0")
    tab.page.fill("#text", "hello")
    tab.page.keyboard.press("Enter")
    tab.until("voice.state === 'live' && document.getElementById('captions').textContent.includes('You typed')")
    assert tab.js("problems") == ["no_sound"] and tab.page.is_checked("#announce")
    assert tab.page.get_attribute("#captions", "aria-live") == "polite"


def test_javascript_passes_the_strict_type_check(node_tools: Path) -> None:
    """`tsc -p web/jsconfig.json` finds nothing in the library and the page."""
    done = subprocess.run([node_tools / ".bin" / "tsc", "-p", WEB / "jsconfig.json"], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stdout


def test_published_types_match_the_code(node_tools: Path, tmp_path: Path) -> None:
    """`npm run types` was run after the last change of the library."""
    subprocess.run([node_tools / ".bin" / "tsc", "-p", WEB / "client" / "tsconfig.json", "--outDir", tmp_path],
                   check=True, capture_output=True, timeout=60)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(path.name for path in (WEB / "client" / "types").iterdir())
    assert filecmp.cmpfiles(tmp_path, WEB / "client" / "types", made, shallow=False)[1:] == ([], [])


def test_library_has_no_dependency_and_no_way_to_markup() -> None:
    """package.json names no dependency, every file it exports exists, and nothing writes HTML."""
    package = json.loads((WEB / "client" / "package.json").read_text(encoding="utf-8"))
    assert package["type"] == "module" and not {"dependencies", "peerDependencies"} & set(package)
    exported = [one if isinstance(one, str) else one["default"] for one in package["exports"].values()]
    for target in [package["types"], *exported]:
        assert (WEB / "client" / target).is_file(), target
    markup = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function")
    assert [path.name for path in WEB.rglob("*.js") if markup.search(path.read_text(encoding="utf-8"))] == []
