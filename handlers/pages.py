"""The talk page and the browser client library, as a browser fetches them.

URLs and where they come from:

    /                       web/index.html (the browser's WebSocket door serves it when no upgrade is asked for)
    /client/lib/NAME        web/client/NAME, the publishable library; any page may import it
    /client/NAME            web/NAME, the talk page's own files

A file has one URL: `/client/client/…` is not found. Only the kinds of file in `CONTENT_TYPES` are served.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import tornado.web

WEB_ROOT: Final = Path(__file__).resolve().parent.parent / "web"

# Named here and not taken from the machine's own table, which on some systems serves modules as text/plain.
CONTENT_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",
}

# Worklets count as scripts; 'self' in connect-src covers wss: on the same host (CSP 3, section 6.7.2.8).
# Trusted types leave a page no way to turn a string into markup or code.
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

PAGE_HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
    # The same URL is also the WebSocket door.
    "Vary": "Upgrade",
}


def render_talk_page(handler: tornado.web.RequestHandler) -> None:
    """Answer the request with the talk page and finish it.

    Call it from the handler of `/` when the request asks for no upgrade. The page is read anew each time: it is
    small, page loads are rare, and a new version is served without a restart.

    Raises:
        tornado.web.HTTPError: 404 if this installation has no `web/` folder.
    """
    try:
        page = (WEB_ROOT / "index.html").read_bytes()
    except FileNotFoundError:
        raise tornado.web.HTTPError(404, "no talk page in this installation") from None
    for name, value in PAGE_HEADERS.items():
        handler.set_header(name, value)
    handler.finish(page)


class TalkPage(tornado.web.RequestHandler):
    """The talk page at a URL of its own, for servers that keep `/` for something else."""

    def get(self) -> None:
        """Answer with the page."""
        render_talk_page(self)

    def head(self) -> None:
        """Answer with the headers of the page."""
        render_talk_page(self)


class ClientFiles(tornado.web.StaticFileHandler):
    """The page's files and the client library, revalidated on each load so that an upgrade shows at once."""

    is_library = False

    def parse_url_path(self, url_path: str) -> str:
        """Map `lib/…` to the library's folder; everything else is the page's own."""
        self.is_library = url_path.startswith("lib/")
        if self.is_library:
            return f"client/{url_path.removeprefix('lib/')}"
        if url_path.startswith("client/"):
            raise tornado.web.HTTPError(404)
        return url_path

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """Refuse what lies outside the folder and what is no page file."""
        if Path(absolute_path).suffix not in CONTENT_TYPES or not Path(absolute_path).is_file():
            raise tornado.web.HTTPError(404)
        return super().validate_absolute_path(root, absolute_path)

    def get_content_type(self) -> str:
        """Return the media type of the file's ending."""
        return CONTENT_TYPES[Path(self.absolute_path or "").suffix]

    def compute_etag(self) -> str | None:
        """Return a tag that changes with the file; Tornado's own is computed once per process and would go stale."""
        if self.absolute_path is None:
            return None
        stat = Path(self.absolute_path).stat()
        return f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'

    def set_extra_headers(self, path: str) -> None:
        """Let other origins import the library, and nothing else."""
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cross-Origin-Resource-Policy", "cross-origin" if self.is_library else "same-origin")
        if self.is_library:
            self.set_header("Access-Control-Allow-Origin", "*")


CLIENT_ROUTE: Final = (r"/client/(.*)", ClientFiles, {"path": str(WEB_ROOT)})
"""The entry of the URL table that serves everything below `/client/`."""
