"""Sign-in on the talk page with Supabase's own library, against `./voice demo --supabase` as it is started by hand."""
from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.local_supabase import missing

pytestmark = [pytest.mark.browser, pytest.mark.postgres]
ROOT = Path(__file__).resolve().parents[2]
START_S, DEADLINE_S = 60.0, 30.0
PASSWORD = "five words are quite enough"
REFUSED = "Failed to load resource: the server responded with a status of 4"  # Chromium says so of every refusal


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the demo says of itself when it is ready; one for all tests of this file."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "cli.main", "demo", "--supabase", "--json", "--no-browser", "--port", "0"]
    environment = {"PATH": "/usr/bin:/bin", "STATE_DIR": str(folder), "LOG_DIR": str(folder / "logs"),
                   "HOME": str(folder)}
    with (folder / "said").open("wb") as said:
        child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=said)
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, (folder / "said").read_text(errors="replace")
        yield json.loads(line)
    finally:
        child.terminate()
        child.wait(START_S)
        child.stdout.close()


class Page:
    """The talk page in a window of its own."""

    def __init__(self, page: Any, demo: dict[str, Any]) -> None:
        self.page, self.url = page, demo["url"].partition("#")[0]
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda line: self.faults.append(line.text) if line.type == "error" else None)

    def open(self, fragment: str = "") -> Page:
        """Load the page and wait until it knows whether somebody is signed in."""
        self.page.goto(self.url + fragment)
        self.until("!document.getElementById('account').hidden || !document.getElementById('start').disabled")
        return self

    def until(self, expression: str) -> Any:
        """Poll until the expression is true; the page's own policy forbids `wait_for_function`."""
        end = time.monotonic() + DEADLINE_S
        while not (value := self.page.evaluate(expression)):
            assert time.monotonic() < end, f"still false: {expression}; {self.faults}"
            self.page.wait_for_timeout(20)
        return value

    def fill(self, email: str, password: str) -> None:
        """Fill the form in and send it."""
        self.page.fill("#email", email)
        self.page.fill("#password", password)
        self.page.press("#password", "Enter")

    def signed_in(self) -> Page:
        """Wait until the page can be used."""
        self.until("!document.getElementById('start').disabled")
        assert self.page.is_hidden("#account") and self.page.is_visible("#account-card")
        return self

    def sign_up(self) -> str:
        """Make an account; returns its address."""
        email = f"{uuid.uuid4()}@example.com"
        self.page.click("#account-change")
        self.fill(email, PASSWORD)
        self.signed_in()
        return email

    def complaint(self) -> str:
        """Wait for a sentence and return it."""
        self.until("!document.getElementById('account-fault').hidden && "
                   "!document.getElementById('account-action').disabled")
        return str(self.page.inner_text("#account-fault"))

    def say(self, words: str) -> None:
        """Type a line and wait for its answer."""
        self.page.fill("#text", words)
        self.page.keyboard.press("Enter")
        self.until(f"document.getElementById('captions').textContent.includes('You typed: {words}')")


@pytest.fixture
def new_page(browser: Any, demo: dict[str, Any]) -> Iterator[Callable[..., Page]]:
    """Make pages, each in a browser of its own as far as storage goes."""
    contexts: list[Any] = []

    def make(**options: Any) -> Page:
        contexts.append(browser.new_context(**options))
        return Page(contexts[-1].new_page(), demo)

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """The page, asking who comes."""
    return new_page().open()


def test_person_signs_up_talks_and_leaves_nothing_behind(page: Page) -> None:
    """Sign up, talk at once to an agent of one's own, reload, sign out: the next person sees nothing of it."""
    email = page.sign_up()
    assert page.page.inner_text("#who") == email
    assert len(page.until("document.querySelectorAll('#agent option').length > 1 && "
                          "[...document.querySelectorAll('#agent option')].map(one => one.textContent)")) == 3
    page.say("good morning")
    page.open().signed_in()
    page.say("still here")
    page.page.click("#sign-out")
    page.until("!document.getElementById('account').hidden")
    assert page.page.input_value("#email") == page.page.input_value("#password") == ""
    assert page.page.evaluate("voice.state") == "ended" and page.page.evaluate("voice.conversationId") == ""
    assert "still here" not in page.page.inner_text("body", timeout=1000)
    assert page.page.evaluate("document.getElementById('captions').textContent").count("still here") == 0
    assert page.page.evaluate("Object.keys(localStorage).filter(name => localStorage[name].includes('token'))") == []
    page.fill(email, PASSWORD)
    page.signed_in().say("back again")
    assert page.faults == []


def test_wrong_password_is_one_sentence_and_the_next_try_works(page: Page) -> None:
    """The page says what is wrong, marks the field, keeps the address, and takes the sentence away while one types."""
    email = page.sign_up()
    page.page.click("#sign-out")
    page.until("!document.getElementById('account').hidden")
    page.fill(email, "not the password")
    assert page.complaint() == "The e-mail address or the password is wrong."
    assert page.page.evaluate("document.activeElement.id") == "password"
    assert page.page.get_attribute("#password", "aria-invalid") == "true"
    assert page.page.input_value("#email") == email
    page.page.fill("#password", PASSWORD)
    assert page.page.is_hidden("#account-fault")
    page.page.click("#account-action")
    page.signed_in()
    assert [fault for fault in page.faults if not fault.startswith(REFUSED)] == []


@pytest.mark.parametrize(("email", "password", "sentence"), [
    ("", "", "Enter your e-mail address."), ("nobody", "x", "Enter your e-mail address."),
    ("a@example.com", "", "Enter a password."), ("a@example.com", "x", "Password should be at least 6 characters."),
    ("demo@example.com", PASSWORD, "There is already an account with this address. Sign in instead.")])
def test_what_cannot_become_an_account_is_said(page: Page, email: str, password: str, sentence: str) -> None:
    """Every refusal of a new account is a sentence of its own."""
    page.page.click("#account-change")
    page.fill(email, password)
    assert page.complaint() == sentence
    assert page.page.is_visible("#account")


def test_sign_in_service_that_is_away_is_said(page: Page) -> None:
    """Without an answer the page blames the connection, not the person."""
    page.page.route("**/auth/v1/**", lambda route: route.abort())
    page.fill("a@example.com", PASSWORD)
    assert page.complaint() == "The sign-in service does not answer. Check your connection, then try again."


def test_address_that_must_be_confirmed_first_is_said(page: Page) -> None:
    """A project that mails a link answers a sign-up without a session; the page says what to do next."""
    answer = {"id": str(uuid.uuid4()), "aud": "authenticated", "role": "", "email": "new@example.com",
              "confirmation_sent_at": "2026-11-20T12:00:00Z", "identities": []}
    page.page.route("**/auth/v1/signup*", lambda route: route.fulfill(
        json=answer, headers={"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}))
    page.page.click("#account-change")
    page.fill("new@example.com", PASSWORD)
    page.until("!document.getElementById('account-note').hidden")
    assert "Open the link in the e-mail sent to new@example.com" in page.page.inner_text("#account-note")
    assert page.page.inner_text("#account-title") == "Sign in to talk"


def test_token_is_fresh_whenever_one_is_asked_for(page: Page) -> None:
    """A session about to run out is refreshed by the library; the server takes the new token."""
    page.sign_up()
    old = page.page.evaluate("voice.options.token()")
    time.sleep(1.1)  # tokens are stamped in whole seconds
    page.page.evaluate("""() => {
      const name = Object.keys(localStorage).find((one) => one.startsWith('voice-'));
      const session = JSON.parse(localStorage[name]);
      localStorage[name] = JSON.stringify({ ...session, expires_at: Math.floor(Date.now() / 1000) + 30 });
    }""")
    new = page.page.evaluate("voice.options.token()")
    assert new and new != old
    answer = httpx.get(f"{page.url}api/agents", headers={"Authorization": f"Bearer {new}"}, trust_env=False)
    assert answer.status_code == 200


def test_signing_out_in_one_tab_signs_out_the_other(page: Page, demo: dict[str, Any]) -> None:
    """Two tabs share the session: when it ends in one, the other asks again and stops talking."""
    page.sign_up()
    other = Page(page.page.context.new_page(), demo).open().signed_in()
    other.say("hello there")
    page.page.click("#sign-out")
    other.until("!document.getElementById('account').hidden && voice.state === 'ended'")


def test_token_in_the_address_counts_first_and_can_be_left(
    new_page: Callable[..., Page], demo: dict[str, Any]
) -> None:
    """The address the demo prints signs the demo's user in; signing out of it leads to the form."""
    page = new_page().open(f"#token={demo['token']}").signed_in()
    assert "token" in page.page.inner_text("#who") and page.page.evaluate("location.hash") == ""
    page.page.click("#sign-out")
    page.until("!document.getElementById('account').hidden")
    page.page.reload()
    page.until("!document.getElementById('account').hidden")
    assert page.faults == []


def test_page_may_talk_to_the_project_and_to_nobody_else(demo: dict[str, Any]) -> None:
    """The policy of the page names the project's address once; the library comes from this server."""
    url = demo["url"].partition("#")[0]
    answer = httpx.get(url, trust_env=False)
    connect = next(part for part in answer.headers["Content-Security-Policy"].split("; ") if part.startswith("connect"))
    assert connect.startswith("connect-src 'self' http://127.0.0.1:") and connect.count("http") == 1
    assert "sb_secret" not in answer.text and answer.text.count("sb_publishable_") == 1
    library = httpx.get(f"{url}client/vendor/supabase.js", trust_env=False)
    assert library.headers["Content-Type"] == "text/javascript; charset=utf-8" and len(library.content) > 50_000
    assert httpx.get(f"{url}client/vendor/package.json", trust_env=False).status_code == 404


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_form_is_accessible_and_fits(new_page: Callable[..., Page], axe: str, width: int, scheme: str) -> None:
    """axe-core finds nothing and nothing is wider than the window, with and without a complaint."""
    page = new_page(viewport={"width": width, "height": 740}, color_scheme=scheme).open()
    for _ in range(2):
        page.page.evaluate(axe)
        found = page.page.evaluate("axe.run(document, { resultTypes: ['violations', 'incomplete'] })")
        faults = [*found["violations"], *found["incomplete"]]
        assert [(one["id"], one["nodes"][0]["html"]) for one in faults] == []
        assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.page.click("#account-action")
