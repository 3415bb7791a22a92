"""The log holds every line, on one line each, and nothing personal, by whatever way it came."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import loguru
import pytest
import tornado.httpclient
import tornado.httpserver
import tornado.testing
import tornado.web

import services.log as log_service
from services.log import captured, configure, log, shutdown

ROOT = Path(__file__).resolve().parents[2]
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlY2FuYXJ5"
SENTENCE = "my daughter has the measles"
SECRETS = (JWT, "sk-proj-canarycanary", "sb_secret_canary", "canary-query-token", "+15551234567", SENTENCE)
DEADLINE_S = 20.0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder the log writes to at DEBUG; the log is closed afterwards."""
    configure(log_dir=str(tmp_path), level="debug", environment="development", workers=1, console=False)
    yield tmp_path
    shutdown()


def written(folder: Path, name: str = "combined.log") -> str:
    return (folder / name).read_text(encoding="utf-8")


def run_script(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python process that can import the source."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    return out, err


def test_line_reads_event_then_fields(folder: Path) -> None:
    """A line is time in UTC, level, event words, two spaces, fields; texts with spaces stand in quotes."""
    log.bind(channel="phone", conn="7f3a").info("conversation ended", duration_s=184.2, side="the client", close=None)
    line = written(folder).splitlines()[0]
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    conversation ended  "
        r'channel=phone conn=7f3a duration_s=184\.2 side="the client" close=-',
        line,
    )


def test_error_file_has_errors_only(folder: Path) -> None:
    """error.log repeats what is ERROR and nothing below it."""
    log.info("one")
    log.warning("two")
    log.error("three")
    assert [line.split()[2] for line in written(folder).splitlines()] == ["one", "two", "three"]
    assert [line.split()[2] for line in written(folder, "error.log").splitlines()] == ["three"]


def test_level_leaves_out_what_is_below(tmp_path: Path) -> None:
    """At level info no DEBUG line is written, and is_debug lets the caller spare itself the work."""
    configure(log_dir=str(tmp_path), level="info", environment="development", workers=1, console=False)
    log.debug("> session.update")
    assert not log.is_debug
    log.info("kept")
    shutdown()
    assert "session.update" not in written(tmp_path)
    assert "kept" in written(tmp_path)


def test_configuring_twice_writes_each_line_once(folder: Path) -> None:
    """The last configure counts; nothing is written twice."""
    configure(log_dir=str(folder), level="debug", environment="development", workers=1, console=False)
    log.info("once")
    logging.getLogger("tornado.general").warning("once too")
    assert written(folder).count("once") == 2


def test_braces_and_markup_are_plain_text(folder: Path) -> None:
    """Format marks of loguru and of Python in an event or a value neither raise nor disappear."""
    log.info("a {b} {} {0!r} <red>c</red> %s", value="{record} </>")
    assert 'a {b} {} {0!r} <red>c</red> %s  value="{record} </>"' in written(folder)


def test_text_cannot_forge_a_line(folder: Path) -> None:
    """Newlines, colours and quotes inside values stay inside their line and their value."""
    log.info("refused", reason='x\n2026-11-20T12:00:00.000Z ERROR forged\x1b[31m  side="server"', **{"a b\nc": 1})
    lines = written(folder).splitlines()
    assert len(lines) == 1
    assert lines[0].endswith('\\x1b[31m  side=\\"server\\"" a_b_c=1')


def test_line_is_capped_at_8_kb(folder: Path) -> None:
    """However much is handed in, a line has at most 8 KiB and its time and level."""
    log.info("long", **{f"field{n}": "wörter " * 500 for n in range(20)})
    (line,) = (folder / "combined.log").read_bytes().splitlines()
    assert 8_000 < len(line) <= 8_192 + 40


def test_json_lines_are_json_even_when_cut(tmp_path: Path) -> None:
    """With json_lines each line is one object with time, level, event and the fields, short or cut."""
    configure(log_dir=str(tmp_path), level="info", environment="test", workers=1, json_lines=True, console=False)
    log.info("kept", turns=3, level="mine")
    log.info("cut", turns=4, **{f"field{n}": "word " * 700 for n in range(20)})
    try:
        raise KeyError(SENTENCE)
    except KeyError as error:
        log.exception("failed", error)
    shutdown()
    kept, cut, failed = map(json.loads, written(tmp_path).splitlines())
    assert (kept["event"], kept["level"], kept["level_"], kept["turns"]) == ("kept", "info", "mine", 3)
    assert (cut["event"], cut["turns"], cut["cut"]) == ("cut", 4, True)
    assert failed["error"] == "KeyError"
    assert "test_log.py" in failed["where"][0]
    assert SENTENCE not in written(tmp_path)


def test_exception_tells_type_and_place_but_not_its_text(folder: Path) -> None:
    """Types, causes and code locations are written; texts of exceptions and values of variables never."""

    def inner(secret: str) -> None:
        raise ValueError(secret)

    try:
        try:
            inner(SENTENCE)
        except ValueError as cause:
            raise OSError(28, SENTENCE) from cause
    except OSError as error:
        log.exception("tool failed", error, tool="http")
    text = written(folder)
    assert "tool failed  tool=http error=OSError errno=ENOSPC" in text
    assert "    at caused by ValueError" in text
    assert re.search(r"    at tests/services/test_log\.py:\d+ \S+\.inner", text)
    assert SENTENCE not in text
    assert "tool failed" in written(folder, "error.log")


def test_no_canary_through_our_own_way(folder: Path) -> None:
    """Secrets and numbers in events, values and field names of personal things never reach a file."""
    for number, secret in enumerate(SECRETS[:-1]):
        log.debug(
            f"> event {number} token={secret} Bearer {secret}",
            detail=f"?token={secret}&x",
            other=[f"access_token={secret}"],
        )
    log.info("turn", transcript=SENTENCE, arguments={"say": SENTENCE}, frame=SENTENCE.encode(), item=[{1: SENTENCE}])
    check_no_canary(folder)
    assert written(folder).count("\n") == len(SECRETS)


def check_no_canary(folder: Path) -> None:
    for name in ("combined.log", "error.log"):
        text = written(folder, name)
        for secret in SECRETS:
            assert secret not in text


def test_no_canary_through_tornado(folder: Path) -> None:
    """An uncaught exception in a handler and the access line leave neither query, token nor exception text."""

    class Failing(tornado.web.RequestHandler):
        def get(self) -> None:
            heard = SENTENCE
            raise RuntimeError(heard + JWT)

    async def ask() -> int:
        socket, port = tornado.testing.bind_unused_port()
        server = tornado.httpserver.HTTPServer(tornado.web.Application([("/live", Failing)]))
        server.add_socket(socket)
        address = f"http://127.0.0.1:{port}/live?token=canary-query-token&jwt={JWT}"
        headers = {"Authorization": f"Bearer {SECRETS[1]}"}
        response = await tornado.httpclient.AsyncHTTPClient().fetch(address, headers=headers, raise_error=False)
        server.stop()
        return response.code

    assert asyncio.run(ask()) == 500
    check_no_canary(folder)
    text = written(folder)
    assert "Uncaught exception <str>" in text
    assert "error=RuntimeError" in text
    assert re.search(r"    at tests/services/test_log\.py:\d+ .*Failing\.get", text)
    assert "http request  logger=tornado.access status=500 method=GET path=/live" in text


def test_no_canary_through_asyncio(folder: Path) -> None:
    """Exceptions of forgotten tasks and of callbacks are told by type and place, without texts and arguments."""

    async def forgotten() -> None:
        raise ValueError(SENTENCE)

    def callback(said: str) -> None:
        raise LookupError(said)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        task = loop.create_task(forgotten(), name=f"task of {SECRETS[4]}")
        loop.call_soon(callback, SENTENCE)
        await asyncio.wait({task})
        del task
        gc.collect()

    asyncio.run(run())
    check_no_canary(folder)
    text = written(folder)
    assert "Task exception was never retrieved  logger=asyncio error=ValueError" in text
    assert "error=LookupError" in text


def test_no_canary_through_libraries_and_direct_loguru(folder: Path) -> None:
    """Templates keep their numbers only; put-together messages, DEBUG chatter and tracebacks are left out."""
    library = logging.getLogger("httpcore.connection")
    library.setLevel(logging.DEBUG)
    library.debug("send_request_headers.started headers=%r", [(b"Authorization", JWT)])
    library.warning("row %d of %s refused: %s", 7, SENTENCE, ValueError(SENTENCE))
    library.warning("field %(field)s has %(count)d", {"field": SENTENCE, "count": 2})
    library.warning(f"heard {SENTENCE}")
    library.critical("a constant text: kept")
    try:
        raise ValueError(SENTENCE)
    except ValueError:
        logging.getLogger("sqlalchemy.pool").exception("connection lost")
        loguru.logger.opt(exception=True).error("direct")
    library.setLevel(logging.NOTSET)
    check_no_canary(folder)
    text = written(folder)
    assert "row 7 of <str> refused: <ValueError>" in text
    assert "field <str> has 2" in text
    assert "message of a library left out" in text
    assert "a constant text: kept" in text
    assert "connection lost  logger=sqlalchemy.pool error=ValueError" in text
    assert "direct  error=ValueError" in text
    assert "send_request_headers" not in text


def test_one_line_a_second_and_cause(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many equal warnings one a second is written; the next one says how many were left out."""
    clock = [100.0]
    monkeypatch.setattr(log_service.time, "monotonic", lambda: clock[0])
    for _ in range(50):
        log.warning("connection refused", cause="capacity", conn="x")
        log.warning("connection refused", cause="draining")
        log.info("connection opened", conn="y")
    clock[0] += 1.0
    log.warning("connection refused", cause="capacity")
    text = written(folder)
    assert text.count("cause=capacity") == 2
    assert text.count("cause=draining") == 1
    assert "connection refused  cause=capacity suppressed=49" in text
    assert text.count("connection opened") == 50
    shutdown()
    assert "lines left out at the end  suppressed=49" in written(folder)


def test_oldest_files_go_while_others_are_compressed(tmp_path: Path) -> None:
    """A rotated file that a compressor removes in this moment is no failure, which would lose lines."""
    names = [tmp_path / f"combined.2026-11-{day:02}_10-00-00_000000.log" for day in range(1, 21)]
    for path in names[1:]:
        path.touch()
    log_service._keep_newest([str(path) for path in names])
    assert sorted(tmp_path.iterdir()) == names[-log_service.KEEP_FILES :]


def test_one_process_rotates_and_compresses_without_losing_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full files are set aside and compressed, and together hold every line in order."""
    monkeypatch.setattr(log_service, "ROTATE_BYTES", "20 KB")
    configure(log_dir=str(tmp_path), level="info", environment="development", workers=1, console=False)
    for number in range(1_500):
        log.info("line", number_=number)
    shutdown()
    rotated = sorted(tmp_path.glob("combined.*.log.gz"), key=lambda path: path.stat().st_mtime_ns)
    assert len(rotated) >= 3
    assert not list(tmp_path.glob("*.part"))
    text = "".join(gzip.decompress(path.read_bytes()).decode() for path in rotated) + written(tmp_path)
    assert sorted(int(number) for number in re.findall(r"number_=(\d+)", text)) == list(range(1_500))


WRITER = """
    import sys
    from services.log import configure, log, shutdown
    folder, writer, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    configure(log_dir=folder, level="info", environment="test", workers=4, console=False)
    for number in range(count):
        log.info("line", id=f"{writer}:{number}", filling="word " * (number % 40))
    shutdown()
    print(log.lost_lines)
"""


def test_four_processes_lose_no_line_while_files_are_renamed(tmp_path: Path) -> None:
    """With logrotate's rename and create going on, 4 processes writing to one file lose and tear nothing."""
    count = 2_500
    writers = [run_script(WRITER, str(tmp_path), str(writer), str(count)) for writer in range(4)]
    rotations, deadline = 0, time.monotonic() + DEADLINE_S
    while any(writer.poll() is None for writer in writers) and time.monotonic() < deadline:
        current = tmp_path / "combined.log"
        if current.exists() and current.stat().st_size > 50_000:
            current.rename(tmp_path / f"combined.log.{rotations}")
            current.touch()
            rotations += 1
        time.sleep(0.005)  # pace of the rotation, not a synchronisation
    assert [finish(writer)[0].strip() for writer in writers] == ["0"] * 4
    lines = [line for path in tmp_path.glob("combined.log*") for line in path.read_text().splitlines()]
    ids = {match.group(1) for line in lines if (match := re.search(r"Z INFO    line  id=(\d:\d+) .*pid=\d+$", line))}
    assert rotations >= 3
    assert len(lines) == 4 * count
    assert ids == {f"{writer}:{number}" for writer in range(4) for number in range(count)}


FULL_DISK = """
    import logging, sys, time
    from services.log import configure, log, shutdown
    configure(log_dir=sys.argv[1], level="info", environment="test", workers=1, console=False)
    began = time.perf_counter()
    for number in range(20_000):
        log.info("line", filling="word " * 40)
        if not number % 100:
            logging.getLogger("tornado.general").error("also %d", number)
    print(log.lost_lines, time.perf_counter() - began)
    sys.stdout.flush()
    sys.stdin.readline() if len(sys.argv) > 2 else None
    if len(sys.argv) > 2:
        time.sleep(1.1)  # the pause the log gives a full disk is 1 s
        log.info("room again")
    import os
    shutdown()
    os._exit(0)  # without the interpreter's own last flush into the full file
"""


def test_full_disk_neither_raises_nor_prints(tmp_path: Path) -> None:
    """When no write succeeds the caller goes on at full speed, nothing is printed, and the lost lines are counted."""
    for name in ("combined.log", "error.log"):
        (tmp_path / name).symlink_to("/dev/full")
    out, err = finish(run_script(FULL_DISK, str(tmp_path)))
    lost, seconds = out.split()
    assert int(lost) >= 20_000
    assert float(seconds) < 10
    assert err == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small tmpfs")
def test_log_goes_on_when_the_full_disk_has_room_again(tmp_path: Path) -> None:
    """After a full disk got room, lines are written again and the log says how many it lost."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine lets not even root mount a tmpfs")  # reason: a container without that right
    try:
        (disk / "ballast").write_bytes(b"x" * 150_000)
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(disk), "wait"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lost = int(process.stdout.readline().split()[0])
        (disk / "ballast").unlink()
        _, err = process.communicate("\n", timeout=DEADLINE_S)
        assert err == ""
        assert lost > 1_000
        lines = written(disk).splitlines()
        assert any("room again" in line for line in lines)
        assert any(re.search(r"WARNING log lines lost  lost=\d+$", line) for line in lines)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_console_is_coloured_only_on_a_terminal_without_no_color(tmp_path: Path) -> None:
    """On a pipe the console has the same lines as the file, without colour codes."""
    script = """
        import sys
        from services.log import configure, log, shutdown
        configure(log_dir=sys.argv[1], level="info", environment="development", workers=1, console=True)
        log.info("hello", said="a b")
        shutdown()
    """
    _, err = finish(run_script(script, str(tmp_path)))
    assert re.fullmatch(r'\d\d:\d\d:\d\d\.\d{3} INFO    hello  said="a b"\n', err)


@pytest.mark.parametrize("no_color", ["", "1"])
def test_terminal_gets_colour_unless_no_color_is_set(tmp_path: Path, no_color: str) -> None:
    """A terminal shows levels in colour; NO_COLOR=1 switches that off."""
    script = """
        import sys
        sys.stderr.isatty = lambda: True
        from services.log import configure, log
        configure(log_dir=sys.argv[1], level="info", environment="development", workers=1, console=True)
        log.warning("hello")
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": no_color},
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_S,
    )
    assert ("\x1b[" in process.stderr) is (not no_color)


def test_uncaught_exceptions_in_production_go_to_the_log(tmp_path: Path) -> None:
    """In production neither the main thread nor another prints an exception's text; the log has type and place."""
    script = f"""
        import sys, threading
        from services.log import configure
        configure(log_dir=sys.argv[1], level="info", environment="production", workers=1, console=False)
        def fail():
            raise ValueError({SENTENCE!r})
        thread = threading.Thread(target=fail, name="spool")
        thread.start()
        thread.join()
        fail()
    """
    process = run_script(script, str(tmp_path))
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert SENTENCE not in err
    check_no_canary(tmp_path)
    assert "uncaught exception in a thread  thread=spool error=ValueError" in written(tmp_path, "error.log")
    assert "uncaught exception  error=ValueError" in written(tmp_path, "error.log")


def test_line_of_a_destructor_during_a_write_does_not_block(folder: Path) -> None:
    """A line written while the same thread writes one is counted as lost; it neither blocks nor raises."""
    lost = log.lost_lines

    def destructor(message: str) -> None:
        if "outer" in message:
            log.info("inner")

    handler = loguru.logger.add(destructor, catch=False)
    worker = threading.Thread(target=log.info, args=("outer",), name="writer")
    worker.start()
    worker.join(timeout=5)
    assert not worker.is_alive()
    loguru.logger.remove(handler)
    assert log.lost_lines == lost + 1


def test_tests_can_read_the_lines() -> None:
    """captured gives the lines of both ways at DEBUG without any file, with a rate limit of its own."""
    with captured() as lines:
        log.debug("= live", conn="a", event="e")
        log.warning("refused", cause="capacity")
        logging.getLogger("tornado.general").warning("closed %d", 7)
    assert lines == ["= live  conn=a event=e", "refused  cause=capacity", "closed 7  logger=tornado.general"]


def test_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """configure raises OSError when the folder cannot be made, so that the start can tell the operator."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        configure(log_dir=str(tmp_path / "file" / "logs"), level="info", environment="test", workers=1, console=False)
