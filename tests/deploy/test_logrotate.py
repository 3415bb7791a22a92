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

WRITER = """
    import sys
    from services.log import configure, log, shutdown
    folder, writer, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
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


def rule(folder: Path) -> Path:
    """Write the shipped rule for a folder and for whoever runs the test; returns its path."""
    user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
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
    program, logs = logrotate_program(), tmp_path / "logs"
    logs.mkdir(mode=0o750)
    path = rule(logs)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("rotate 14", "rotate 900"))  # the rest of the rule is as shipped
    writers = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(logs), str(number), str(LINES)], cwd=ROOT,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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
