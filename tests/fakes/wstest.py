"""Autobahn's conformance suite for WebSockets, `wstest`: fuzzes servers and clients, and says what they did.

    suite = Wstest.get()                                  # skips where it cannot be had
    suite.fuzz_servers({"ours": "ws://127.0.0.1:1/"}, ["1.*"])["ours"]["1.1.1"].behavior
    with suite.fuzzing_server(["1.*"]) as fuzz: …         # fuzz.url; afterwards fuzz.verdicts["agent"]

It is a program of Python 2.7. Where an interpreter is found it gets an environment of its own below the user's cache
folder (90 s, needs a C compiler); else root makes a Debian 11, the last with that interpreter, beside it and runs the
program in there (80 s, 650 MB). It misleads in that what it calls NON-STRICT is a pass.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from tests.fakes.debian_root import DebianRoot, why_not

VERSION = "25.10.1"
INSTALL_S = 600.0
"""It fetches and builds a dozen packages."""

RUN_S = 300.0
"""The cases of the protocol take 11 s for each server, those with large messages 7 s."""

START_S = 30.0

Report = Mapping[str, Mapping[str, "Verdict"]]
"""Agent, case, verdict."""

IN_DEBIAN = f"""
virtualenv -q -p python2.7 /opt/autobahn
/opt/autobahn/bin/pip install -q --force-reinstall 'pip<21' 'setuptools<45'
/opt/autobahn/bin/pip install -q autobahntestsuite=={VERSION}
"""
"""Debian's own pip cannot build packages for Python 2.7; pip 20 and setuptools 44 are the last for it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the suite found about a case: OK, NON-STRICT, INFORMATIONAL, UNIMPLEMENTED, WRONG CODE or FAILED."""

    behavior: str
    close: str


@dataclass(slots=True)
class FuzzingServer:
    """A server that fuzzes its clients: `/runCase?case=N&agent=NAME`, then `/updateReports?agent=NAME`."""

    url: str
    verdicts: dict[str, Mapping[str, Verdict]] = field(default_factory=dict)


class Wstest:
    """The program; `root` is the folder it takes for the root of the file system."""

    def __init__(self, command: Sequence[str], root: Path) -> None:
        self._command, self._root = command, root

    @classmethod
    def get(cls) -> Self:
        """Return it, installed if it was not; skips where that is impossible."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voice-server-tests"
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "autobahn.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            python = find_python()
            if python and not (failure := _install(python, cache / "autobahn")):
                return cls([str(cache / "autobahn/bin/wstest")], Path("/"))
            reason = why_not() or _make_debian(cache / "debian-bullseye")
            if not reason:
                folder = cache / "debian-bullseye"
                return cls(["chroot", str(folder), "/opt/autobahn/bin/wstest"], folder)
        pytest.skip(f"Autobahn needs Python 2.7: {failure if python else 'none is installed'}; {reason}")

    def fuzz_servers(self, servers: Mapping[str, str], cases: Sequence[str]) -> Report:
        """Try the cases on servers that echo, by name and address."""
        with self._folder() as folder:
            named = [{"agent": agent, "url": url} for agent, url in servers.items()]
            command = self._prepare(folder, "fuzzingclient", {"servers": named, "cases": list(cases)})
            subprocess.run(command, check=True, timeout=RUN_S, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return _read(folder)

    @contextmanager
    def fuzzing_server(self, cases: Sequence[str]) -> Iterator[FuzzingServer]:
        """Serve the cases to clients that echo; the verdicts are there afterwards."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = FuzzingServer(f"ws://127.0.0.1:{port}")
        with self._folder() as folder:
            spec = {"url": server.url, "cases": list(cases)}
            command = [*self._prepare(folder, "fuzzingserver", spec), "-u", "0"]  # -u: no page that shows the reports
            process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                _wait_for(port)
                yield server
                server.verdicts.update(_read(folder))
            finally:
                process.kill()
                process.wait()

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="autobahn-", dir=self._root / "tmp") as folder:
            yield Path(folder)

    def _prepare(self, folder: Path, mode: str, spec: dict[str, object]) -> list[str]:
        """Write the specification; return the command."""
        seen = Path("/", folder.relative_to(self._root))
        spec |= {"outdir": str(seen / "report"), "exclude-cases": [], "exclude-agent-cases": {}}
        (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        return [*self._command, "-m", mode, "-s", str(seen / "spec.json")]


def find_python() -> str:
    """Return an interpreter of Python 2.7 that starts, or nothing."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [*map(str, sorted(pyenv.glob("versions/2.7*/bin/python2.7"))), shutil.which("python2.7")]
    for python in filter(None, found):  # what is on the path may be pyenv's stand-in, which starts nothing by itself
        if subprocess.run([python, "-c", "import ssl"], capture_output=True, timeout=START_S).returncode == 0:
            return python
    return ""


def _install(python: str, folder: Path) -> str:
    """Make an environment with the suite, unless it is there; return why that failed, or nothing."""
    if _is_ready(folder):
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    helper = folder / "helper"
    failure = _run([
        [sys.executable, "-m", "venv", helper],
        [helper / "bin/pip", "install", "-q", "virtualenv<20.22"],  # the last that makes environments of Python 2.7
        [helper / "bin/virtualenv", "-q", "-p", python, folder],
        [folder / "bin/pip", "install", "-q", f"autobahntestsuite=={VERSION}"],
        [folder / "bin/wstest", "-a"],
    ])  # fmt: skip
    return failure or _mark(folder)


def _make_debian(folder: Path) -> str:
    """Make a Debian 11 with the suite, unless it is there; return why that failed, or nothing."""
    if _is_ready(folder):
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    packages = "ca-certificates,virtualenv,python2.7-dev,gcc,libc6-dev"
    failure = _run([["debootstrap", "--variant=minbase", f"--include={packages}", "bullseye", folder]])
    if failure:
        return failure
    for archive in (folder / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
        if Path("/", name).exists():
            (folder / name).unlink(missing_ok=True)
            shutil.copy(Path("/", name), folder / name)
    done = DebianRoot(folder).run(IN_DEBIAN, timeout_s=INSTALL_S)
    return f"pip in Debian 11: {done.stdout[-300:]}" if done.returncode else _mark(folder)


def _run(commands: list[list[str | Path]]) -> str:
    """Run commands until one fails; return what it said, or nothing."""
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
        except subprocess.TimeoutExpired:
            return f"{command[0]} took longer than {INSTALL_S:g} s"
        if done.returncode:
            return f"{Path(command[0]).name}: {(done.stdout + done.stderr).strip()[-300:]}"
    return ""


def _is_ready(folder: Path) -> bool:
    marker = folder / "autobahn-version"
    return marker.exists() and marker.read_text(encoding="utf-8") == VERSION


def _mark(folder: Path) -> str:
    """Note that everything is installed; a folder without the note is made anew."""
    (folder / "autobahn-version").write_text(VERSION, encoding="utf-8")
    return ""


def _wait_for(port: int) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < end, "wstest does not listen"
            time.sleep(0.05)
        else:
            return


def _read(folder: Path) -> dict[str, Mapping[str, Verdict]]:
    """Return the verdicts of a report by agent and case."""
    report = json.loads((folder / "report/index.json").read_text(encoding="utf-8"))
    return {
        agent: {case: Verdict(found["behavior"], found["behaviorClose"]) for case, found in cases.items()}
        for agent, cases in report.items()
    }
