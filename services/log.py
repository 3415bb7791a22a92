"""The log: two files, an optional console, one way in.

Write lines through `log`; what may stand in them is decided by `core/redaction.py`. Python's own logging (Tornado,
asyncio, httpx, SQLAlchemy, picows) arrives here too, with the same care. What each level holds: docs/logging.md.
"""

from __future__ import annotations

import gzip
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from loguru import logger as _loguru

from core.log_limits import Cause, DiskWatch, RateLimit
from core.log_lines import access_fields, code_locations, error_fields, json_line, text_line, without_texts
from core.redaction import clean, safe_name, safe_value
from core.settings import Settings

if TYPE_CHECKING:
    from loguru import Record

LEVELS = {"trace": 5, "debug": 10, "info": 20, "warning": 30, "error": 40}

ROTATE_BYTES = "50 MB"
KEEP_FILES = 14
"""50 MB times 14 files, twice: 1.4 GB before compression, small beside the 25 GB disk of the smallest droplet."""

KEPT_TROUBLES = 100
"""Lines from WARNING up that stay in memory for the operator: a screenful or three, under 100 KB."""


OPEN_TRIES, OPEN_PAUSE_S = 25, 0.001
"""logrotate makes the new file as root's and gives it away a system call later: a line in between waits."""


class _State:
    """What `configure` decided; one a process."""

    def __init__(self) -> None:
        self.level = LEVELS["warning"]
        self.show_pid = False
        self.json_lines = False
        self.handlers: list[int] = []
        self.limit = RateLimit()
        self.disk = DiskWatch()
        self.troubles: deque[dict[str, Any]] = deque(maxlen=KEPT_TROUBLES)
        self.compressors: list[threading.Thread] = []


_state = _State()


class Log:
    """Writes lines of the form `event words  key=value key=value`.

    The event is a constant text; everything that varies is a field. Lines from WARNING up, and lines at any level that
    have a field `cause`, are limited to one a second for each event and cause (else `code`, else `error`); the next one
    says how many were left out (`suppressed=n`).
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, object] | None = None) -> None:
        self._fields = dict(fields or {})

    def bind(self, **fields: object) -> Log:
        """Return a log whose every line carries these fields."""
        return Log({**self._fields, **fields})

    @property
    def is_debug(self) -> bool:
        """True when DEBUG lines are written; ask once per connection, not once per message."""
        return _state.level <= LEVELS["debug"]

    @property
    def lost_lines(self) -> int:
        """Lines the disk did not take since the start of the process."""
        return _state.disk.lost_in_all

    @property
    def troubles(self) -> list[dict[str, Any]]:
        """The latest lines from WARNING up, oldest first, as the files have them: time, level, event, fields."""
        return list(_state.troubles)

    def debug(self, event: str, /, **fields: object) -> None:
        _emit("debug", event, {**self._fields, **fields})

    def info(self, event: str, /, **fields: object) -> None:
        _emit("info", event, {**self._fields, **fields})

    def warning(self, event: str, /, **fields: object) -> None:
        _emit("warning", event, {**self._fields, **fields})

    def error(self, event: str, /, **fields: object) -> None:
        _emit("error", event, {**self._fields, **fields})

    def exception(self, event: str, error: BaseException, /, **fields: object) -> None:
        """Write an ERROR line naming the exception's type and where in the code it passed, never its text."""
        _emit("error", event, {**self._fields, **fields, **error_fields(error)}, where=code_locations(error))


log = Log()


def configure_by(settings: Settings) -> None:
    """Send lines where the settings say, as parent and workers alike must; raises what `configure` does."""
    configure(
        log_dir=settings.log_dir, level=settings.log_level, environment=settings.environment, workers=settings.workers,
        console=settings.log_console, json_lines=settings.log_format == "json",
        own_rotation=settings.log_rotation == "own",
    )  # fmt: skip


def configure(
    *,
    log_dir: str,
    level: str,
    environment: str,
    workers: int,
    console: bool,
    json_lines: bool = False,
    own_rotation: bool = True,
) -> None:
    """Send lines to `combined.log` and `error.log` in `log_dir`; may be called again, the last call counts.

    Every process calls it for itself, after a fork. One process rotates its files itself; with several the shipped
    logrotate rule renames them and every process follows: if each compressed for itself, it would lose what the others
    write meanwhile (60 % of the lines, operations reference, section 4).

    Args:
        log_dir: Made if missing.
        level: Least level of combined.log: trace, debug, info, warning or error.
        environment: In `production`, exceptions nobody caught go to the log instead of standard error.
        workers: Processes of this server that write to the same files.
        console: Also write to standard error, in colour when it is a terminal and NO_COLOR is unset.
        json_lines: One JSON object a line instead of text.
        own_rotation: Whether a single process rotates its files; False where logrotate does, as other instances may
            write to them.

    Raises:
        OSError: If the folder or the files cannot be made.
    """
    shutdown()
    Path(log_dir).mkdir(parents=True, exist_ok=True)
    _remove_handlers()
    rotates = own_rotation and workers == 1
    _state.level, _state.show_pid, _state.json_lines = LEVELS[level], not rotates, json_lines
    if console:
        _add_console(_state.level)
    rotation: dict[str, Any] = {"watch": True}
    if rotates:
        rotation = {"rotation": ROTATE_BYTES, "retention": _keep_newest, "compression": _compress_later}
    for name, least in (("combined.log", _state.level), ("error.log", LEVELS["error"])):
        # catch=False: a failed write comes back to _write, which counts it; loguru would print a traceback a line
        handler = _loguru.add(
            Path(log_dir) / name, level=max(least, _state.level), format="{extra[line]}", catch=False, backtrace=False,
            diagnose=False, enqueue=False, encoding="utf-8", filter=lambda record: _state.disk.is_open,
            opener=_open_patiently, **rotation,
        )  # fmt: skip
        _state.handlers.append(handler)
    _route_stdlib()
    if environment == "production":
        sys.excepthook, threading.excepthook = _uncaught, _uncaught_in_thread


def shutdown() -> None:
    """Write what is still to be said, close the files; later lines from WARNING up go to standard error."""
    if suppressed := _state.limit.take_suppressed():
        _write("warning", "lines left out at the end", {"suppressed": suppressed})
    _remove_handlers()
    for thread in _state.compressors:
        thread.join(timeout=10)  # 50 MB take gzip about a second
    _state.compressors.clear()
    if sys.excepthook is _uncaught:
        sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__
    logging.root.removeHandler(_stdlib_route)
    _state.level, _state.show_pid, _state.json_lines = LEVELS["warning"], False, False
    _add_console(_state.level)


@contextmanager
def captured(level: str = "debug") -> Iterator[list[str]]:
    """Collect the lines written meanwhile, for tests: `event words  key=value`, without time and level.

    Code locations of an exception follow in the same string, one a line.
    Rate limit and count of lost lines begin anew, and lines of Python's own logging are collected too.
    """
    lines: list[str] = []
    before = _state.level, _state.limit, _state.disk
    _state.level, _state.limit, _state.disk = min(LEVELS[level], before[0]), RateLimit(), DiskWatch()
    handler = _loguru.add(
        lambda message: lines.append(str(message).rstrip("\n")), level=LEVELS[level], format="{message}{extra[tail]}"
    )
    routed = _stdlib_route in logging.root.handlers
    _route_stdlib()
    try:
        yield lines
    finally:
        _loguru.remove(handler)
        _state.level, _state.limit, _state.disk = before
        if not routed:
            logging.root.removeHandler(_stdlib_route)


def _emit(
    level: str, event: str, fields: dict[str, object], *, where: list[str] | None = None, cause: Cause = ()
) -> None:
    number = LEVELS[level]
    if number < _state.level:
        return
    if number >= LEVELS["warning"] or "cause" in fields:
        told = next((str(fields[name])[:80] for name in ("cause", "code", "error") if name in fields), "")
        suppressed = _state.limit.admit(cause or (level, event, told), time.monotonic())
        if suppressed is None:
            return
        if suppressed:
            fields["suppressed"] = suppressed
    _write(level, event, fields, where)


def _write(level: str, event: str, fields: Mapping[str, object], where: list[str] | None = None) -> None:
    _state.disk.attempt(time.monotonic())
    try:
        # no arguments after the text: loguru formats only when there are some, so braces in it are harmless
        _loguru.bind(fields=fields, where=where or []).log(level.upper(), event)
    except OSError:
        _state.disk.failed(time.monotonic())
        return
    except RuntimeError:  # a destructor logs while this thread is writing a line: loguru refuses to wait for itself
        _state.disk.lose()
        return
    lost = _state.disk.take_untold()
    if lost:
        _write("warning", "log lines lost", {"lost": lost})


def _prepare(record: Record) -> None:
    """Turn a record of any origin into its line; the only place where text for the log is made."""
    extra = record["extra"]
    fields, where = extra.get("fields", extra), extra.get("where", [])
    if record["exception"] and (error := record["exception"].value) is not None:  # when somebody calls loguru itself
        fields, where = {**fields, **error_fields(error)}, code_locations(error)
    shown = {safe_name(name): safe_value(name, value) for name, value in fields.items()}
    if _state.show_pid:
        shown["pid"] = os.getpid()
    event, level = clean(record["message"]), record["level"].name
    stamp = record["time"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    body = text_line(event, shown)
    tail = "".join(f"\n    at {clean(place, 200)}" for place in where)
    if record["level"].no >= LEVELS["warning"]:
        _state.troubles.append({"time": stamp, "level": level.lower(), "event": event, "fields": shown})
    line = f"{stamp} {level:<7} {body}{tail}"
    if _state.json_lines:
        line = json_line({"time": stamp, "level": level.lower(), "event": event}, shown, where)
    record["exception"], record["message"] = None, body
    record["extra"] = {"line": line, "tail": tail}


class _StdlibRoute(logging.Handler):
    """Brings records of Python's own logging into the log, from WARNING up: libraries put payloads into DEBUG lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line for a record; called by Python's logging."""
        error = record.exc_info[1] if record.exc_info else None
        fields: dict[str, object] = {"logger": record.name}
        if record.name == "tornado.access":
            event = "http request"
            fields |= access_fields(record.args)
        else:
            event = _event_of(record)
        cause = (record.name, record.pathname, record.lineno, type(error), fields.get("status"))
        level = "error" if record.levelno >= logging.ERROR else "warning"
        if error is not None:
            fields |= error_fields(error)
        _emit(level, event, fields, where=code_locations(error) if error else None, cause=cause)


_stdlib_route = _StdlibRoute(logging.WARNING)


def _event_of(record: logging.LogRecord) -> str:
    """Return a library's message with its numbers but without its texts.

    A message with arguments is a template. One without may have been put together from anything, so it is kept only
    when it stands as a constant in the code that logged it.
    """
    template = record.msg if isinstance(record.msg, str) else f"<{type(record.msg).__name__}>"
    if record.args:
        return without_texts(template, record.args)
    if _is_constant(template, record.pathname):
        return template
    if record.name == "asyncio":  # "Exception in callback name(arguments) at …", then reprs on further lines
        return re.split(r"[^A-Za-z0-9_. -]", template, maxsplit=1)[0]
    return "message of a library left out"


def _is_constant(text: str, path: str) -> bool:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename != path:
        frame = frame.f_back
    return frame.f_code.co_filename == path and text in frame.f_code.co_consts


def _route_stdlib() -> None:
    root = logging.root
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler:  # what basicConfig made; a test's collectors are left alone
            root.removeHandler(handler)
    if _stdlib_route not in root.handlers:
        root.addHandler(_stdlib_route)


def _add_console(level: int) -> None:
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")  # https://no-color.org
    look = "<dim>{time:HH:mm:ss.SSS}</dim> <level>{level: <7}</level> {message}{extra[tail]}"
    if _state.json_lines:  # somebody's collector reads it
        colour, look = False, "{extra[line]}"
    _state.handlers.append(_loguru.add(_to_stderr, level=level, format=look, colorize=colour, diagnose=False))


def _to_stderr(line: str) -> None:
    try:
        sys.stderr.write(line)
    except (OSError, ValueError):  # closed, or a pipe nobody reads: the files have the line
        pass


def _remove_handlers() -> None:
    for handler in _state.handlers:
        try:
            _loguru.remove(handler)
        except (OSError, ValueError):  # the last flush met a full disk, or somebody removed all handlers
            _state.disk.failed(time.monotonic())
    _state.handlers.clear()


def _open_patiently(path: str, flags: int) -> int:
    """Open a file that may be given to us any moment."""
    for _ in range(OPEN_TRIES):
        try:
            return os.open(path, flags, 0o666)
        except PermissionError:
            time.sleep(OPEN_PAUSE_S)
    return os.open(path, flags, 0o666)


def _compress_later(path: str) -> None:
    """Compress a rotated file beside the event loop: 50 MB hold gzip for about a second, too long for a live call."""
    thread = threading.Thread(target=_compress, args=(Path(path),), name="log-compress", daemon=True)
    _state.compressors = [other for other in _state.compressors if other.is_alive()] + [thread]
    thread.start()


def _keep_newest(paths: list[str]) -> None:
    """Remove older files by the time in their names; loguru's own rule fails when a compressor has just removed one."""
    for path in sorted(paths, reverse=True)[KEEP_FILES:]:
        Path(path).unlink(missing_ok=True)


def _compress(path: Path) -> None:
    part = path.with_name(path.name + ".gz.part")
    try:
        with path.open("rb") as source, gzip.open(part, "wb") as target:
            shutil.copyfileobj(source, target)
        part.rename(path.with_name(path.name + ".gz"))
        path.unlink()
    except OSError:  # a full disk: the plain file stays and counts among those kept
        part.unlink(missing_ok=True)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.exception("uncaught exception", error)
    _to_stderr(f"uncaught {kind.__name__}, see error.log\n")


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        named = getattr(arguments.thread, "name", "-")
        log.exception("uncaught exception in a thread", arguments.exc_value, thread=named)


_loguru.remove()  # loguru's own handler prints the values of variables
_loguru.configure(patcher=_prepare)
_add_console(_state.level)
