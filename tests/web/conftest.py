"""One Chromium, one gateway, one fresh context a test.

Needs `playwright` and a Chromium on the path (`CHROMIUM` names another). `page.wait_for_function` evaluates inside the
page, which the page's own security policy refuses, so waiting is polling with `evaluate`.
"""
from __future__ import annotations

import array
import math
import os
import shutil
import sys
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from fake_gateway import FakeGateway, Plan  # noqa: E402

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
DEADLINE_S = 30.0


def write_tone(path: Path, hz: float, seconds: float) -> Path:
    """A mono 16-bit 48 kHz sine at 0.4 of full scale; Chromium repeats it."""
    pcm = array.array("h", (int(32767 * 0.4 * math.sin(2 * math.pi * hz * i / 48_000))
                            for i in range(int(48_000 * seconds))))
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(48_000)
        out.writeframes(pcm.tobytes())
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium whose microphone plays a 1 kHz tone; permission is refused unless the context grants it.

    One for each file: while it is there an event loop runs in this thread, and other files' `asyncio.run` would fail.
    """
    if not CHROMIUM:
        pytest.skip(reason="no Chromium on the path")
    tone = write_tone(tmp_path_factory.mktemp("sound") / "tone.wav", 1000, 5)
    flags = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={tone}",
             "--deny-permission-prompts"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium's sandbox does not work for root
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)
        yield started
        started.close()


@pytest.fixture(scope="session")
def running_gateway() -> Iterator[FakeGateway]:
    """The gateway of all tests."""
    started = FakeGateway()
    yield started
    started.close()


@pytest.fixture
def gateway(running_gateway: FakeGateway) -> FakeGateway:
    """The gateway with a fresh plan and no conversations."""
    running_gateway.plan = Plan()
    running_gateway.sessions.clear()
    return running_gateway


class Tab:
    """A page and what the tests ask of it."""

    def __init__(self, page: Any, gateway: FakeGateway) -> None:
        self.page, self.gateway = page, gateway
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda line: self.faults.append(line.text) if line.type == "error" else None)

    def open(self, path: str = "#token=any") -> Tab:
        """Load the talk page and wait until it knows its agents (or asks for a token)."""
        self.page.goto(self.gateway.url + path)
        self.until("!document.getElementById('start').disabled || !document.getElementById('sign-in').hidden"
                   " || document.querySelector('.problem')")
        return self

    def start(self) -> Tab:
        """Press Start and wait until live."""
        self.page.click("#start")
        self.until("voice.state === 'live'")
        return self

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return self.page.evaluate(expression)

    def until(self, expression: str, within_s: float = DEADLINE_S) -> Any:
        """Poll until the expression is true; fail with what is known otherwise."""
        return self.wait(lambda: self.js(expression), expression, within_s)

    def wait(self, holds: Callable[[], Any], what: str = "condition", within_s: float = DEADLINE_S) -> Any:
        """Poll until `holds()` is true."""
        end = time.monotonic() + within_s
        while not (value := holds()):
            assert time.monotonic() < end, f"still false: {what}; {self.faults}"
            self.page.wait_for_timeout(20)
        return value

    def utter(self, seconds: float = 0.4) -> None:
        """Speak into the scripted microphone for that long, then be quiet."""
        self.js("speak(true)")
        self.page.wait_for_timeout(seconds * 1000)
        self.js("speak(false)")

    def words(self, function: str, *arguments: Any) -> Any:
        """What a function of the library's words.js gives; an argument with a name becomes a DOMException."""
        return self.page.evaluate("""async ([name, given]) => (await import('/client/lib/words.js'))[name](
          ...given.map((one) => (one.name ? new DOMException(one.message, one.name) : one)))""", [function, arguments])

    def text(self, selector: str) -> str:
        """The visible text of an element."""
        return str(self.page.inner_text(selector))


@pytest.fixture
def new_tab(browser: Any, gateway: FakeGateway) -> Iterator[Callable[..., Tab]]:
    """Make tabs: `scripted` gives the microphone whose voice the test controls, `allowed` the permission."""
    contexts: list[Any] = []

    def make(*, scripted: bool = True, allowed: bool = True, script: str = "", **options: Any) -> Tab:
        context = browser.new_context(**options)
        contexts.append(context)
        if allowed:
            context.grant_permissions(["microphone"])
        if scripted:
            context.add_init_script(path=HERE / "scripted_microphone.js")
        if script:
            context.add_init_script(script)
        return Tab(context.new_page(), gateway)

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def tab(new_tab: Callable[..., Tab]) -> Tab:
    """A tab with the scripted microphone."""
    return new_tab()


@pytest.fixture(scope="session")
def node_tools() -> Path:
    """`node_modules` of this folder: `npm install --prefix tests/web`."""
    folder = HERE / "node_modules"
    if not (folder / "axe-core").is_dir() or not (folder / "typescript").is_dir():
        pytest.skip(reason="run: npm install --prefix tests/web")
    return folder


@pytest.fixture(scope="session")
def axe(node_tools: Path) -> str:
    """The source of axe-core, to be evaluated in a page."""
    return (node_tools / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
