"""handlers/pages.py over HTTP: what a browser is given, and what it is refused."""
from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fake_gateway import FakeGateway


def get(gateway: FakeGateway, path: str, **headers: str) -> http.client.HTTPResponse:
    """One GET, the path sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5)
    try:
        connection.putrequest("GET", path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        answer.text = answer.read().decode()  # type: ignore[attr-defined]
        return answer
    finally:
        connection.close()


def test_talk_page_is_locked_down(gateway: FakeGateway) -> None:
    """`GET /` without an upgrade: HTML with a policy that allows only our own files, and nothing inline in it."""
    answer = get(gateway, "/")
    policy = answer.getheader("Content-Security-Policy") or ""
    assert answer.status == 200 and answer.getheader("Content-Type") == "text/html; charset=utf-8"
    assert policy.startswith("default-src 'none'; script-src 'self'") and "unsafe" not in policy
    assert answer.getheader("Permissions-Policy", "").startswith("microphone=(self)")
    for name, value in (("Referrer-Policy", "no-referrer"), ("X-Content-Type-Options", "nosniff"),
                        ("Cross-Origin-Opener-Policy", "same-origin"), ("Cache-Control", "no-cache")):
        assert answer.getheader(name) == value
    page: str = answer.text  # type: ignore[attr-defined]
    assert "style=" not in page and "onclick" not in page and "<script>" not in page


@pytest.mark.parametrize(("path", "kind"), [
    ("/client/app.js", "text/javascript; charset=utf-8"), ("/client/style.css", "text/css; charset=utf-8"),
    ("/client/icon.svg", "image/svg+xml"), ("/client/page/keys.js", "text/javascript; charset=utf-8"),
    ("/client/lib/voice-client.js", "text/javascript; charset=utf-8"),
    ("/client/lib/types/voice-client.d.ts", "text/plain; charset=utf-8")])
def test_files_have_their_type_and_the_library_is_for_everybody(gateway: FakeGateway, path: str, kind: str) -> None:
    """Right media type, revalidated by ETag, CORS for the library alone."""
    answer = get(gateway, path)
    assert answer.status == 200 and answer.getheader("Content-Type") == kind
    assert answer.getheader("Cache-Control") == "no-cache" and answer.getheader("X-Content-Type-Options") == "nosniff"
    assert answer.getheader("Access-Control-Allow-Origin") == ("*" if "/lib/" in path else None)
    again = get(gateway, path, If_None_Match=answer.getheader("ETag") or "")
    assert again.status == 304


@pytest.mark.parametrize("path", [
    "/client/", "/client/index.html", "/client/jsconfig.json", "/client/client/voice-client.js",
    "/client/lib/package.json", "/client/../server.py", "/client/lib/../../handlers/pages.py",
    "/client/%2e%2e/handlers/pages.py", "/client/nothing.js", "/client/page"])
def test_everything_else_is_not_found(gateway: FakeGateway, path: str) -> None:
    """No folder, no second address of a file, nothing that is not a page file, nothing outside web/."""
    assert get(gateway, path).status in {403, 404}
