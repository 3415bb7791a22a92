"""Traces cost nothing where nobody looks, and a collector that is away costs nothing but spans."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.log import captured
from services.traces import FLUSH_S, NO_TRACE, NO_TRACES, TracesUnavailable, open_traces
from tests.fakes.browser import eventually
from tests.fakes.collector import Collector, flushed

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_PACKAGES = """
import sys
from importlib.abc import MetaPathFinder
class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own."""
    variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True,
                          timeout=60)  # fmt: skip


def test_nothing_is_imported_and_nothing_happens_without_an_address() -> None:
    """Whoever has no collector pays for none."""
    assert open_traces(None, "1") is NO_TRACES
    assert open_traces("", "1") is NO_TRACES
    trace = NO_TRACES.conversation("browser", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    assert trace is NO_TRACE and not trace.is_on and trace.trace_id == ""
    trace.begin("admit").end()
    trace.end(failed=True, close_code=1000)
    NO_TRACES.close()
    code = "import sys, server; print(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert run(code).stdout == "False\n"


def test_tree_arrives_whole() -> None:
    """What was begun is sent at the close at the latest, below the conversation's span and with what is known."""
    with Collector() as collector:
        traces = open_traces(collector.url + "/", "1.2.3")
        trace = traces.conversation("browser")
        link = trace.begin("upstream.connect", generation=1)
        link.end(outcome="open", detail=None)
        link.end(outcome="twice")
        trace.begin("response", gen_ai__request__model="m")
        trace.end(failed=True, close_code=1011, first_audio_s=None)
        trace.end(close_code=1000)
        traces.close()
        assert collector.paths == {"/v1/traces"} and collector.services == {"voice-server"}
        (root,), (child,), (response,) = map(collector.named, ("conversation", "upstream.connect", "response"))
    assert re.fullmatch("[0-9a-f]{32}", trace.trace_id)
    assert {root.trace_id, child.trace_id, response.trace_id} == {trace.trace_id}
    assert (root.parent_id, child.parent_id, response.parent_id) == ("", root.span_id, root.span_id)
    assert root.failed and root.attributes == {
        "voice.channel": "browser", "gen_ai.provider.name": "openai", "voice.close_code": 1011,
    }  # fmt: skip
    assert child.attributes == {"voice.generation": 1, "voice.outcome": "open"}
    assert response.attributes == {"gen_ai.request.model": "m"}


@pytest.mark.parametrize("header", ["00-" + "a" * 32 + "-" + "b" * 16 + "-01", "nonsense", "00-" + "0" * 32])
def test_trace_of_whoever_connects_is_gone_on_with(header: str) -> None:
    """A traceparent is the parent; one that is none begins a new trace."""
    with Collector() as collector:
        traces = open_traces(collector.url, "1")
        trace = traces.conversation("phone", header)
        trace.end()
        traces.close()
        (root,) = collector.spans
    is_known = header.endswith("-01")
    assert (root.trace_id == "a" * 32) == is_known
    assert root.parent_id == ("b" * 16 if is_known else "")


def test_collector_that_is_away_is_told_in_the_log_once() -> None:
    """Spans are lost, the close is bounded, and the log names the exporter and nothing of a span."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with captured("info") as lines:
        traces = open_traces(address, "1")
        for _ in range(5):
            traces.conversation("browser").end(secret_word="canary-of-a-span")
        began = time.monotonic()
        traces.close()
        assert time.monotonic() - began < FLUSH_S + 1
        assert eventually(lambda: any("opentelemetry" in line for line in lines), 10.0)
        flushed()
    assert "canary-of-a-span" not in "".join(lines)


def test_missing_packages_are_named_with_the_command_that_gets_them() -> None:
    """The server says what to install and is not started again into the same mistake."""
    code = WITHOUT_PACKAGES + "from services.traces import open_traces\nopen_traces('http://127.0.0.1:9', '1')"
    done = run(code)
    assert "TracesUnavailable" in done.stderr and "pip install -r requirements-otel.txt" in done.stderr
    assert issubclass(TracesUnavailable, Exception)


def test_server_without_the_packages_does_not_start(tmp_path: Path) -> None:
    """78, as for every setting that must be mended."""
    code = WITHOUT_PACKAGES + "import server, sys; sys.exit(server.main())"
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path}/g.db", "STATE_DIR": str(tmp_path), "LOG_DIR": str(tmp_path),
                "OPENAI_API_KEY": "sk-unused-key-of-a-test", "PORT": "0"}  # fmt: skip
    done = run(code, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", **settings)
    assert done.returncode == 78
    assert "pip install -r requirements-otel.txt" in done.stderr
