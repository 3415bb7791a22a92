"""The operator's page in a real Chromium, with a real server and a talk going on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from simulator.settings import SimulatorSettings
from tests.fakes.browser import AGENTS, INSTRUCTIONS_CANARY, Browser, eventually
from tests.fakes.gateway import Gateway

pytestmark = pytest.mark.browser

DEADLINE_S = 30.0

OpenPage = Callable[..., "Desk"]


class Desk:
    """The operator's page and what the tests ask of it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda line: self.faults.append(line.text) if line.type == "error" else None)

    def until(self, expression: str, within_s: float = DEADLINE_S) -> Any:
        """Poll until an expression is true in the page; its policy refuses `wait_for_function`."""
        end = time.monotonic() + within_s
        while not (value := self.page.evaluate(expression)):
            assert time.monotonic() < end, f"still false: {expression}; {self.faults}"
            self.page.wait_for_timeout(50)
        return value

    def text(self, selector: str) -> str:
        """The visible text of an element."""
        return str(self.page.inner_text(selector))


@pytest.fixture(scope="module")
def server() -> Iterator[Gateway]:
    """One server for this file; its agent speaks in real time, so that words can be seen to grow."""
    simulator = SimulatorSettings(speed=1.0, think_s=0.0, transcription_delay_s=0.0)
    with Gateway(simulator=simulator, seed=AGENTS) as running:
        yield running


@pytest.fixture
def open_page(browser: Any, server: Gateway) -> Iterator[OpenPage]:
    """Open the page by the printed address, each time as somebody new."""
    contexts: list[Any] = []

    def opened(**options: Any) -> Desk:
        context = browser.new_context(**options)
        contexts.append(context)
        desk = Desk(context.new_page())
        desk.page.goto(server.server.admin.url)
        desk.until("document.getElementById('state').dataset.state === 'live'")
        return desk

    yield opened
    for context in contexts:
        context.close()


def row_of(conversation_id: str) -> str:
    """A JavaScript expression for the live row of a conversation."""
    rows = "[...document.querySelectorAll('#live-rows tr')]"
    return f"{rows}.find(row => row.textContent.includes('{conversation_id[:8]}'))"


def press(desk: Desk, conversation_id: str, words: str) -> None:
    """Press a button of a live row by keyboard."""
    desk.until(row_of(conversation_id))
    desk.page.evaluate(f"{row_of(conversation_id)}.querySelector('[aria-label^=\"{words}\"]').focus()")
    desk.page.keyboard.press("Enter")


def test_live_session_appears_grows_and_is_ended(open_page: OpenPage, server: Gateway) -> None:
    """A row appears, its transcript grows, the end button closes the client with 1000, the log has no word of it."""
    desk = open_page()
    with Browser(server) as talk:
        conversation_id = talk.live()
        desk.until(f"{row_of(conversation_id)} && document.getElementById('tile-active').textContent === '1'")
        talk.type_text("test long answer")
        talk.until("response.audio_transcript.delta")
        press(desk, conversation_id, "Open")
        said = "document.querySelector('#session-talk .assistant:last-child .said')?.textContent ?? ''"
        first = desk.until(f"({said}).length > 12 && ({said})")
        desk.until(f"({said}).length > {len(first)}")
        assert "test long answer" in desk.text("#session-talk") and "response.create" in desk.text("#session-events")
        assert INSTRUCTIONS_CANARY not in desk.text("#session")
        press(desk, conversation_id, "End")
        assert desk.until("document.activeElement?.textContent === 'Let them talk'"), "the harmless one has the focus"
        desk.page.keyboard.press("Tab")
        desk.page.keyboard.press("Enter")
        end = talk.end()
    assert (end.code, end.error) == (1000, None)
    desk.until("document.getElementById('session-note').textContent.includes('ended')")
    desk.until("document.getElementById('tile-active').textContent === '0'")
    log = server.log_text()
    audits = [line for line in log.splitlines() if "audit=true" in line and conversation_id in line]
    assert ["viewed" in audits[0], "ended by operator" in audits[1], len(audits)] == [True, True, 2]
    assert "long answer" not in log and first not in log
    assert desk.faults == []


def test_letting_them_talk_ends_nothing(open_page: OpenPage, server: Gateway) -> None:
    """The question before the end can be answered with no, by Escape too."""
    desk = open_page()
    with Browser(server) as talk:
        conversation_id = talk.live()
        for key in ("Enter", "Escape"):
            press(desk, conversation_id, "End")
            desk.until("document.getElementById('end-dialog').open")
            desk.page.keyboard.press(key)
            desk.until("!document.getElementById('end-dialog').open")
        talk.type_text("still here")
        assert talk.answer()
    assert desk.faults == []


def test_past_conversation_is_found_and_read(open_page: OpenPage, server: Gateway) -> None:
    """Search by id finds one conversation; opened it shows its words and how to keep them."""
    with Browser(server) as talk:
        conversation_id = talk.live()
        talk.type_text("<b>words to keep</b>")
        talk.answer()
        talk.leave()
    desk = open_page()
    assert eventually(lambda: "conversation ended" in server.log_text())
    desk.page.fill("#past-id", conversation_id)
    desk.page.keyboard.press("Enter")
    desk.until("document.querySelectorAll('#past-rows tr').length === 1")
    desk.page.click("#past-rows button")
    desk.until("document.getElementById('session-talk').textContent.includes('<b>words to keep</b>')")
    links = desk.page.evaluate("[...document.querySelectorAll('#session-actions a')].map(a => a.getAttribute('href'))")
    assert links == [f"/admin/past/{conversation_id}?format={kind}" for kind in ("text", "json")]
    desk.page.click("#session-close")
    assert desk.page.evaluate("document.activeElement.closest('#past-rows') !== null"), "focus goes back"
    desk.until("document.querySelectorAll('#cost-chart rect').length === 30")
    assert desk.faults == []


def test_warnings_are_listed(open_page: OpenPage, server: Gateway) -> None:
    """A warning of the log appears with its words and fields."""
    desk = open_page()
    server.server.context.logger.warning("the page was watched", cause="the test")
    desk.until("document.getElementById('troubles-list').textContent.includes('the page was watched')")
    assert "cause=the test" in desk.text("#troubles-list") and "warning" in desk.text("#troubles-list")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible_on_a_small_screen(open_page: OpenPage, server: Gateway, axe: str, scheme: str) -> None:
    """At 375 px nothing scrolls sideways, and axe finds no fault in either scheme with a session opened."""
    desk = open_page(viewport={"width": 375, "height": 800}, color_scheme=scheme, bypass_csp=True)
    with Browser(server) as talk:
        conversation_id = talk.live()
        talk.type_text("hello")
        talk.answer()
        press(desk, conversation_id, "Open")
        desk.until("document.querySelectorAll('#session-talk .turn').length >= 2")
        assert desk.page.evaluate("document.documentElement.scrollWidth") <= 375
        desk.page.evaluate(axe)
        found = desk.page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})")
        faults = [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found["violations"]]
        assert faults == []


def test_without_the_key_a_person_is_told_where_it_is(browser: Any, server: Gateway) -> None:
    """The address without its key shows how to get it, and no data."""
    context = browser.new_context()
    page = context.new_page()
    page.goto((server.server.admin.url or "").partition("?")[0])
    assert "./voice status" in page.inner_text("main") and page.query_selector("#live") is None
    context.close()


def test_other_sites_cannot_look(open_page: OpenPage, server: Gateway) -> None:
    """A page of another origin in the same browser, with the cookie there, gets neither data nor a stream."""
    desk = open_page()
    base = (server.server.admin.url or "").partition("/admin")[0]
    other = desk.page.context.new_page()
    other.goto(f"{server.url}/phone-that-is-not-there")
    for path in ("me", "stream", "past"):
        attempt = f"fetch('{base}/admin/{path}', {{credentials: 'include'}}).then(r => r.status, () => 'refused')"
        assert other.evaluate(attempt) == "refused"
    opaque = f"fetch('{base}/admin/me', {{credentials: 'include', mode: 'no-cors'}})"
    assert other.evaluate(f"{opaque}.then(r => r.status, () => 'refused')") in {0, "refused"}
