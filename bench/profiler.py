"""Where the server's processor time goes under load: `python -m bench.profiler --help`.

Two programs look at the running server from outside, so nothing in it is changed. py-spy sees Python's functions
(`pip install py-spy` into .venv first); perf, where it is installed, sees libraries, threads and the kernel, and knows
waiting from work. py-spy pauses the server for each look, so latencies during a profile mean nothing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.child import ChildError
from bench.costs import WARM_UP
from bench.meters import cpu_s
from bench.rig import NAMES, SETTLE_S, NotMeasured, Rig
from bench.shapes import CHANNELS
from bench.systems import NotStarted, System

LOOKS_HZ = 400
"""Looks a second: 3,000 in a usual profile, so a function with 1 % of the time is seen 30 times."""

SPARE_S = 60.0
"""How much longer than asked for py-spy may take, above all to read the symbols of compiled code."""


WAITS = ("_connection_worker_thread (", "Condition.wait (", "_worker (", "_recv (")
"""Python functions in which threads wait inside compiled code, which py-spy takes for work."""

PERF_SHARE = 0.8
"""Least share in percent of a line of perf."""


class NoProfiler(Exception):
    """Raised when py-spy is not installed, or may not look at the server."""


def main(argv: list[str]) -> int:
    """Print the functions that took most of the time; returns the exit status."""
    options = _options(argv)
    try:
        with Rig(is_tls=options.tls) as rig, rig.system(options.system) as system:
            shown = _opening(rig, system, options) if options.opening else _talking(rig, system, options)
    except (NotMeasured, NotStarted, ChildError, NoProfiler) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print("\n".join(shown))
    return 0


def _talking(rig: Rig, system: System, options: argparse.Namespace) -> list[str]:
    """Return the profile of sessions that talk."""
    rig.open(system, options.channel, count=options.sessions)
    rig.talk(options.channel)
    window = rig.window(system, SETTLE_S)
    head = (
        f"{options.system}, {options.sessions} {options.channel} sessions: {window.us_per_message:.1f} µs a message, "
        f"{window.share_of_core:.0%} of a core"
    )
    shown = _looked_at(system, options)
    rig.close()
    return [head, *shown]


def _opening(rig: Rig, system: System, options: argparse.Namespace) -> list[str]:
    """Return the profile of sessions that are opened and closed, one after the other, for as long as is looked."""
    rig.cycle(system, options.channel, count=WARM_UP)
    is_over = threading.Event()
    opened = 0

    def open_and_close() -> None:
        nonlocal opened
        while not is_over.is_set():
            rig.cycle(system, options.channel, count=options.sessions)
            opened += options.sessions

    with ThreadPoolExecutor(1, thread_name_prefix="bench-opening") as pool:
        working = pool.submit(open_and_close)
        cpu = cpu_s(system.pids)
        try:
            shown = _looked_at(system, options)
        finally:
            is_over.set()
        working.result()
        used = cpu_s(system.pids) - cpu
    each_ms = used / opened * 1000
    head = f"{options.system}, {opened} {options.channel} sessions opened and closed: {each_ms:.2f} ms each"
    return [head, *shown]


def _looked_at(system: System, options: argparse.Namespace) -> list[str]:
    stacks = _recorded(system.pids[0], options.seconds)
    return [*table(stacks.splitlines(), options.top), *_perf(system.pids[0], options.seconds, system.folder)]


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.profiler", description="Profile the server under load.")
    parser.add_argument("--system", choices=[name for name in NAMES if name not in {"nginx", "direct"}], default="ours")
    parser.add_argument("--channel", choices=CHANNELS, default="browser")
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--tls", action="store_true", help="an upstream with TLS")
    parser.add_argument("--opening", action="store_true", help="sessions opened and closed instead of talking ones")
    parser.add_argument("--top", type=int, default=30, metavar="N", help="functions shown (default 30)")
    return parser.parse_args(argv)


def _recorded(pid: int, seconds: int) -> str:
    """Return the stacks py-spy saw: one a line, frames from the outermost, then how often.

    Raises:
        NoProfiler: If it cannot be had.
    """
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        raise NoProfiler("py-spy is not installed: .venv/bin/pip install py-spy")
    with tempfile.TemporaryDirectory(prefix="voice-bench-") as folder:
        output = Path(folder) / "stacks"
        command = [program, "record", "--pid", str(pid), "--format", "raw", "--function", "--duration", str(seconds),
                   "--rate", str(LOOKS_HZ), "--output", str(output)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + SPARE_S)
        except subprocess.TimeoutExpired:
            raise NoProfiler("py-spy did not come to an end") from None
        if done.returncode or not output.exists():
            raise NoProfiler(f"py-spy could not look at the server: {done.stderr.strip()[-500:]}")
        return output.read_text(encoding="utf-8")


def _perf(pid: int, seconds: int, folder: Path) -> list[str]:
    """Return what perf saw by library, thread and symbol, as lines; a sentence when there is no perf."""
    program = shutil.which("perf")
    if program is None:
        return ["perf is not installed: nothing is known about compiled code and the kernel"]
    data = str(folder / "perf.data")
    record = [program, "record", "-F", "997", "-p", str(pid), "-o", data, "--", "sleep", str(seconds)]
    done = subprocess.run(record, capture_output=True, text=True, timeout=seconds + SPARE_S)
    if done.returncode:
        return [f"perf could not look at the server: {done.stderr.strip()[-300:]}"]
    lines = []
    for title, keys in (("by library", "dso"), ("by thread", "pid"), ("by symbol", "dso,symbol")):
        report = [program, "report", "-i", data, "--stdio", "--no-children", "--percent-limit", str(PERF_SHARE),
                  "--sort", keys]  # fmt: skip
        shown = subprocess.run(report, capture_output=True, text=True, timeout=SPARE_S).stdout
        useful = [line.rstrip(" -") for line in shown.splitlines() if line.strip() and not line.startswith("#")]
        lines += [f"perf, processor time {title}", *useful]
    return lines


def table(stacks: Iterable[str], top: int) -> list[str]:
    """Return the functions with most time of their own, and with most time including what they call, as lines."""
    own, whole, looks = Counter[str](), Counter[str](), 0
    for line in stacks:
        path, _, times = line.rpartition(" ")
        frames = path.split(";")
        count = int(times)
        if frames[-1].startswith(WAITS):
            continue
        looks += count
        own[frames[-1]] += count
        for frame in set(frames):
            whole[frame] += count
    lines = [f"{looks} looks", f"{'own':>6} {'whole':>6}  functions by their own time"]
    for frame, count in own.most_common(top):
        lines.append(f"{count / looks:6.1%} {whole[frame] / looks:6.1%}  {frame}")
    lines.append(f"{'own':>6} {'whole':>6}  functions with what they call")
    for frame, count in whole.most_common(top):
        lines.append(f"{own[frame] / looks:6.1%} {count / looks:6.1%}  {frame}")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
