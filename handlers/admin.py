"""The operator's page `/admin`: an own listener on 127.0.0.1, held by one process of this machine.

    /admin                     the page; ?key=… lets in
    /admin/session  /admin/me  signing in with an admin's token (ADMIN_PUBLIC_URL), who looks
    /admin/stream              what is live, one picture a second
    /admin/live/{id}/end       ends a session
    /admin/past  /admin/past/{id}  /admin/costs  /admin/doctor

All processes that share a STATE_DIR want to show it; the one that was first does, and when it ends another one follows.
"""

from __future__ import annotations

import asyncio
import errno
import html
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError

from core.settings import Settings
from handlers.admin_access import Access, AdminDoor
from handlers.admin_doors import (
    CostsDoor,
    DoctorDoor,
    EndDoor,
    MeDoor,
    PastDoor,
    SignInDoor,
    StreamDoor,
    TranscriptDoor,
    Watch,
)
from handlers.api import NotFound
from handlers.context import Context
from handlers.pages import CLIENT_ROUTE, CONTENT_SECURITY_POLICY, PAGE_HEADERS, WEB_ROOT
from services.admin_seat import AdminSeat
from services.doctor import Doctor
from services.siblings import Siblings

HOST: Final = "127.0.0.1"
"""Never another: the machine's own users come directly, others through nginx or an SSH tunnel."""

BESIDE_PORT: Final = 2
"""Where the page is looked for in development: HEALTH_PORT is PORT + 1."""

CLOSE_S: Final = 2.0
"""How long a stop waits for pages that look; closing one takes no round trip."""

RETRY_S: Final = 5.0
"""How often a process looks whether the one that shows the page is gone."""

_ID: Final = r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"


class PageDoor(AdminDoor):
    """`GET /admin`."""

    is_open = True

    def get(self) -> None:
        """Show the page to who is signed in; trade the key of the address for a cookie; tell others what to do."""
        for name, value in PAGE_HEADERS.items():
            self.set_header(name, value)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Permissions-Policy", "microphone=(), camera=(), geolocation=()")
        self.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY.format(also=""))
        if self.access.fits_key(self.get_query_argument("key", "")):
            self.give_cookie(self.access.let_in("local key"))
            self.context.logger.info("admin signed in", audit=True, operator="local key")
            self.redirect("/admin", status=303)  # the key leaves the address bar
        elif self.access.session(self.get_cookie(self.cookie_name)) is not None:
            self.finish(_file("index.html"))
        else:
            self.set_status(401 if self.access.is_exposed else 403)
            self.finish(_file("sign-in.html" if self.access.is_exposed else "refused.html"))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer a person in words."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(f"<!doctype html><title>Refused</title><p>{html.escape(self._reason)}.")


class HomeDoor(AdminDoor):
    """`GET /`: leads to the page."""

    is_open = True

    def get(self) -> None:
        """Send people on."""
        self.redirect("/admin", status=303)


def _file(name: str) -> bytes:
    try:
        return (WEB_ROOT / "admin" / name).read_bytes()
    except FileNotFoundError:
        raise HTTPError(404, reason="No operator's page in this installation") from None


def admin_doors(context: Context, access: Access, watch: Watch, doctor: Doctor) -> Application:
    """Return the URL table of ADMIN_PORT."""
    own = {"context": context, "access": access}
    watching = {**own, "watch": watch}
    return Application(
        [
            (r"/", HomeDoor, own),
            (r"/admin/?", PageDoor, own),
            (r"/admin/session", SignInDoor, own),
            (r"/admin/me", MeDoor, own),
            (r"/admin/stream", StreamDoor, watching),
            (rf"/admin/live/{_ID}/end", EndDoor, watching),
            (r"/admin/past", PastDoor, own),
            (rf"/admin/past/{_ID}", TranscriptDoor, own),
            (r"/admin/costs", CostsDoor, own),
            (r"/admin/doctor", DoctorDoor, {**own, "doctor": doctor}),
            CLIENT_ROUTE,
        ],
        default_handler_class=NotFound,
        log_function=lambda handler: None,
    )


class AdminPage:
    """The page of this process, shown while no other process of the machine shows it.

    Args:
        context: The services of this process.
        make_server: Returns an HTTP server for a URL table.

    Attributes:
        url: Address to open, with the key in it where a key is enough; None while this process does not show the page.
    """

    def __init__(self, context: Context, make_server: Callable[[Application], HTTPServer]) -> None:
        self._context = context
        self._make_server = make_server
        run_dir = context.siblings.run_dir
        self._seat = AdminSeat(run_dir)
        self._access = Access(context.settings)
        self._watch = Watch(Siblings(run_dir, None))
        self._server: HTTPServer | None = None
        self._task: asyncio.Task[None] | None = None
        self.url: str | None = None

    def start(self) -> None:
        """Show the page, at once or when the process that shows it is gone; nothing where it is switched off."""
        settings = self._context.settings
        if settings.is_production and settings.admin_port is None:
            return
        if not self._open():
            self._task = self._context.start(self._keep_trying(), "admin-page")

    async def stop(self) -> None:
        """Close the page; another process may show it."""
        if self._task is not None:
            self._task.cancel()
        if self._server is not None:
            self._server.stop()
            try:
                async with asyncio.timeout(CLOSE_S):
                    await self._server.close_all_connections()
            except TimeoutError:
                self._context.logger.warning("admin page cut off")
        self._server = self.url = None
        self._seat.give_back()

    async def _keep_trying(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S)
            if self._open():
                return

    def _open(self) -> bool:
        """Return whether this process shows the page; a port that is taken, or a disk that is full, stops no call."""
        try:
            if not self._seat.take():
                return False
            sockets = _bind(self._context.settings)
            port = sockets[0].getsockname()[1]
            self.url = self._address(port)
            self._seat.leave_word({"url": self.url, "pid": os.getpid()})
        except OSError as error:
            self._context.logger.warning("no admin page", cause=errno.errorcode.get(error.errno or 0, "OSError"))
            self._seat.give_back()
            return False
        doctor = Doctor(self._context.settings)
        self._server = self._make_server(admin_doors(self._context, self._access, self._watch, doctor))
        self._server.add_sockets(sockets)
        self._context.logger.info("admin page", port=port, exposed=self._access.is_exposed)
        return True

    def _address(self, port: int) -> str:
        public = self._context.settings.admin_public_url
        if public is not None:
            return public if public.endswith("/admin") else f"{public}/admin"
        return f"http://{HOST}:{port}/admin?key={self._access.key}"


def _bind(settings: Settings) -> list[socket.socket]:
    """Return the listening socket: on ADMIN_PORT, else beside PORT or, when that is taken, anywhere.

    Raises:
        OSError: If ADMIN_PORT is taken.
    """
    if settings.admin_port is not None:
        return bind_sockets(settings.admin_port, HOST)
    try:
        return bind_sockets(settings.port + BESIDE_PORT if settings.port else 0, HOST)
    except (OSError, OverflowError):
        return bind_sockets(0, HOST)
