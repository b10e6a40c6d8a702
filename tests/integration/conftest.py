"""Real processes for the end-to-end tests: servers on ports that the system chooses, stopped by their process id."""
import ctypes
import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MUSELET = ROOT / "build" / "release" / "bin" / "muselet"
MODEL = ROOT / "build" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_ID = "smollm2"


def _end_with_parent():
    """What a failed test leaves running ends with the tests."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Process:
    """A muselet process whose log lines (JSON, on stderr) can be waited for."""

    def __init__(self, *arguments, prefix=()):
        self.child = subprocess.Popen([*prefix, str(MUSELET), *map(str, arguments)], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                      preexec_fn=_end_with_parent)
        self.lines = []
        self.output = []
        self._events = queue.Queue()
        threading.Thread(target=self._read_log, daemon=True).start()
        threading.Thread(target=self._read_output, daemon=True).start()

    def _read_log(self):
        for line in self.child.stderr:
            self.lines.append(line)
            try:
                self._events.put(json.loads(line))
            except ValueError:
                continue
        self._events.put(None)

    def _read_output(self):
        for line in self.child.stdout:
            self.output.append(line)

    def wait_for(self, message, timeout_s=60):
        """The fields of the next log line with this message."""
        end = time.monotonic() + timeout_s
        while True:
            event = self._events.get(timeout=max(0.01, end - time.monotonic()))
            assert event is not None, "the process ended:\n" + "".join(self.lines[-20:])
            if event.get("msg") == message:
                return event

    def stop(self, signal_number=signal.SIGTERM, timeout_s=30):
        if self.child.poll() is None:
            self.child.send_signal(signal_number)
        return self.child.wait(timeout_s)

    def resident_bytes(self):
        fields = (pathlib.Path("/proc") / str(self.child.pid) / "statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGESIZE")


class Server(Process):
    """All roles in one process; `http` is HOST:PORT once it is ready."""

    def __init__(self, *arguments):
        super().__init__("serve", *arguments)
        self.http = self.wait_for("ready")["http"]

    @property
    def url(self):
        return f"http://{self.http}"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_config(path, **sections):
    """JSON is YAML, so this is a config file."""
    path.write_text(json.dumps(sections, indent=1))
    return path


def serve_config(path, **sections):
    base = {"models": [{"id": MODEL_ID, "path": str(MODEL)}],
            "gateways": [{"name": "g0", "http": "127.0.0.1:0"}]}
    return write_config(path, **{**base, **sections})


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One server with the default options for all tests that only read."""
    config = serve_config(tmp_path_factory.mktemp("server") / "config.yaml")
    running = Server("--config", config)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def float_server(tmp_path_factory):
    """The same model with float32 activations, as the reference computes."""
    config = serve_config(tmp_path_factory.mktemp("float") / "config.yaml",
                          cpu={"activations": "float32"})
    running = Server("--config", config)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def golden():
    """Answers of the reference implementation for the default model."""
    return json.loads((ROOT / "tests" / "golden" / "smollm2" / "expected.json").read_text())


@pytest.fixture
def client(server):
    from openai import OpenAI
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made
