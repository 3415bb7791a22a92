"""The talk page and the browser client library, as a browser fetches them.

URLs and where they come from:

    /                           web/index.html (the browser's WebSocket door serves it when no upgrade is asked for)
    /client/lib/NAME            web/client/NAME, the publishable library; any page may import it
    /client/vendor/supabase.js  Supabase's own library, see `supabase_library`
    /client/NAME                web/NAME, the talk page's own files

A file has one URL: `/client/client/…` is not found. Only the kinds of file in `CONTENT_TYPES` are served.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import tornado.web

from core.settings import Settings

REPOSITORY: Final = Path(__file__).resolve().parent.parent
WEB_ROOT: Final = REPOSITORY / "web"

SUPABASE_LIBRARIES: Final = (
    WEB_ROOT / "vendor" / "supabase.js",
    REPOSITORY / "supabase" / "local" / "node_modules" / "@supabase" / "supabase-js" / "dist" / "umd" / "supabase.js",
)
"""Where supabase-js may be, as the one file its package ships for pages: put there by whoever runs this server, or
installed by `./voice demo --supabase`."""

SIGN_IN_PLACE: Final = b'<meta name="supabase" content="">'
"""Where in the page stands which project signs people in."""

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
        "connect-src 'self'{also}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

PAGE_HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
    # The same URL is also the WebSocket door.
    "Vary": "Upgrade",
}


def supabase_library() -> Path | None:
    """Return the file of supabase-js, None where there is none: the talk page then asks for a token."""
    return next((path for path in SUPABASE_LIBRARIES if path.is_file()), None)


def render_talk_page(handler: tornado.web.RequestHandler, settings: Settings | None = None) -> None:
    """Answer the request with the talk page and finish it.

    Call it from the handler of `/` when the request asks for no upgrade. The page is read anew each time: it is
    small, page loads are rare, and a new version is served without a restart.

    Args:
        handler: Of the request.
        settings: Say which Supabase project signs people in, if the page shall offer that.

    Raises:
        tornado.web.HTTPError: 404 if this installation has no `web/` folder.
    """
    try:
        page = (WEB_ROOT / "index.html").read_bytes()
    except FileNotFoundError:
        raise tornado.web.HTTPError(404, "no talk page in this installation") from None
    also = ""
    if settings and settings.supabase_url and settings.supabase_publishable_key and supabase_library():
        parts = urlsplit(settings.supabase_url)
        also = f" {parts.scheme}://{parts.netloc}"
        page = page.replace(SIGN_IN_PLACE, _sign_in(settings.supabase_url, settings.supabase_publishable_key), 1)
    for name, value in PAGE_HEADERS.items():
        handler.set_header(name, value)
    handler.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY.format(also=also))
    handler.finish(page)


def _sign_in(url: str, publishable_key: str) -> bytes:
    """Return what the page needs to sign people in. The library is a classic script: its one file is no module."""
    project = html.escape(json.dumps({"url": url, "key": publishable_key}), quote=True)
    script = '<script defer src="/client/vendor/supabase.js"></script>'
    return f'<meta name="supabase" content="{project}">\n{script}'.encode()


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
"""The entry of the URL table that serves `web/` below `/client/`."""


def client_routes() -> list[Any]:
    """Return the entries of the URL table for everything below `/client/`."""
    library = supabase_library()
    if library is None or library.is_relative_to(WEB_ROOT):
        return [CLIENT_ROUTE]
    return [(r"/client/vendor/(supabase\.js)", ClientFiles, {"path": str(library.parent)}), CLIENT_ROUTE]
