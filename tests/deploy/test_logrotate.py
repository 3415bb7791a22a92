"""The shipped logrotate rule loses no line of several processes, with the real logrotate."""

from __future__ import annotations

import grp
import gzip
import os
import pwd
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RULE = ROOT / "deploy" / "logrotate.conf"
DEADLINE_S = 60.0
WRITERS, LINES = 4, 10_000

NOBODY = pwd.getpwnam("nobody")
"""Whom root has the lines written as: to root, a file that is not the service's yet is as good as its own."""

WRITER = """
    import os, sys
    from services.log import configure, log, shutdown
    folder, writer, count, owner, group = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(group)
        os.setuid(owner)
    configure(log_dir=folder, level="info", environment="test", workers=1, console=False, own_rotation=False)
    for number in range(count):
        log.info("line", id=f"{writer}:{number}", filling="word " * (number % 40))
    shutdown()
    print(log.lost_lines)
"""


def logrotate_program() -> str:
    """Return the path of logrotate; skips the test where it is not installed."""
    found = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin")
    if found is None:
        pytest.skip("logrotate is not installed: apt-get install logrotate")
    return found


def owner_of_lines() -> tuple[int, int]:
    """Return user and group that write: whoever runs the test, nobody for root."""
    return (os.geteuid(), os.getegid()) if os.geteuid() else (NOBODY.pw_uid, NOBODY.pw_gid)


def open_to_others(tmp_path: Path) -> Path:
    """Make a folder for the logs that belongs to whoever writes them; pytest's own are closed to others."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o750)
    os.chown(logs, *owner_of_lines())
    return logs


def rule(folder: Path) -> Path:
    """Write the shipped rule for a folder and its owner; returns its path."""
    owner = folder.stat()
    user, group = pwd.getpwuid(owner.st_uid).pw_name, grp.getgrgid(owner.st_gid).gr_name
    text = RULE.read_text(encoding="utf-8").replace("/var/log/websocket-voice-server", str(folder))
    path = folder.parent / "rule.conf"
    path.write_text(text.replace("voicegw voicegw", f"{user} {group}"), encoding="utf-8")
    path.chmod(0o644)
    return path


def rotate(program: str, path: Path, *options: str) -> None:
    """Run logrotate once; what it compresses does not count in its status."""
    state = path.with_name("state")
    done = subprocess.run([program, *options, "--state", str(state), str(path)], capture_output=True, text=True,
                          timeout=DEADLINE_S)  # fmt: skip
    assert done.returncode == 0, done.stderr


def all_lines(folder: Path) -> list[str]:
    """Return the lines of combined.log and everything it was rotated to."""
    lines = []
    for path in folder.glob("combined.log*"):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines += data.decode("utf-8").splitlines()
    return lines


def test_rule_is_the_one_the_docs_promise(tmp_path: Path) -> None:
    """logrotate understands the rule: create with the service's owner, delayed compression, 14 files, 50 MB."""
    text = RULE.read_text(encoding="utf-8")
    for word in ("create 0640 voicegw voicegw", "delaycompress", "compress", "rotate 14", "maxsize 50M"):
        assert re.search(rf"^ +{word}$", text, re.MULTILINE), word
    assert not re.search(r"^ *copytruncate", text, re.MULTILINE)
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o750)
    rotate(logrotate_program(), rule(logs), "--debug")


def test_four_processes_lose_no_line_under_the_real_logrotate(tmp_path: Path) -> None:
    """Rotated again and again under load, 40,000 lines of 4 processes are all there, once each, none torn."""
    program, logs = logrotate_program(), open_to_others(tmp_path)
    path = rule(logs)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("rotate 14", "rotate 900"))  # the rest of the rule is as shipped
    writers = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(logs), str(number), str(LINES),
                          *map(str, owner_of_lines())],
                         cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(WRITERS)
    ]  # fmt: skip
    rotations, until = 0, time.monotonic() + DEADLINE_S
    while any(writer.poll() is None for writer in writers) and time.monotonic() < until:
        current = logs / "combined.log"
        if current.exists() and current.stat().st_size > 100_000:
            rotate(program, path, "--force")
            rotations += 1
        time.sleep(0.02)  # pace of the rotation, not a synchronisation
    told = [writer.communicate(timeout=DEADLINE_S) for writer in writers]
    assert told == [("0\n", "")] * WRITERS
    lines = all_lines(logs)
    ids = {hit.group(1) for line in lines if (hit := re.search(r"Z INFO    line  id=(\d:\d+) .*pid=\d+$", line))}
    print(f"{rotations} rotations, {len(lines)} of {WRITERS * LINES} lines")
    assert rotations >= 5
    assert len(lines) == len(ids) == WRITERS * LINES
    assert len(list(logs.glob("combined.log.*.gz"))) >= rotations - 1


def test_file_that_is_not_the_services_yet_is_waited_for(tmp_path: Path) -> None:
    """In the moment in which the new file is still root's, lines wait instead of being lost for a second."""
    logs = open_to_others(tmp_path)
    code = textwrap.dedent(WRITER).replace("range(count)", "map(int, sys.stdin)")
    writer = subprocess.Popen([sys.executable, "-u", "-c", code, str(logs), "0", "0", *map(str, owner_of_lines())],
                              cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert writer.stdin is not None
    current = logs / "combined.log"
    ids = [str(number) for number in range(5)]
    for number in ids:
        if current.exists():
            current.rename(logs / f"combined.log.{number}")
        current.touch(mode=0o000)
        os.chown(current, *owner_of_lines())
        writer.stdin.write(f"{number}\n")
        writer.stdin.flush()
        time.sleep(0.005)  # what a busy disk takes between making the file and giving it away
        current.chmod(0o640)
        until = time.monotonic() + DEADLINE_S
        while not current.stat().st_size and time.monotonic() < until:
            time.sleep(0.001)
    told, _ = writer.communicate(timeout=DEADLINE_S)
    assert told == "0\n"
    assert sorted(re.findall(r"id=0:(\d)", "".join(all_lines(logs)))) == ids
