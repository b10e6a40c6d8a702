"""How a server stops: what runs is finished while probes hear that it leaves; a second signal does not wait."""
import json
import signal
import threading
import time
import urllib.error
import urllib.request

import pytest

from conftest import MODEL_ID, Server, serve_config


def first_data(stream):
    """The first line of a stream that is not an event's id."""
    while (line := stream.readline()).startswith(b"id: "):
        pass
    return line


@pytest.fixture
def busy(tmp_path):
    """A server of its own, and a stream of it that has begun and goes on for a while."""
    running = Server("--config", serve_config(tmp_path / "c.yaml"))
    body = {"model": MODEL_ID, "prompt": "Count:", "max_tokens": 400, "ignore_eos": True, "stream": True}
    request = urllib.request.Request(f"{running.url}/v1/completions", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    stream = urllib.request.urlopen(request)
    first = first_data(stream)
    assert first.startswith(b"data: ")
    yield running, stream
    running.stop(signal.SIGKILL)


def status_of(url, body=None):
    try:
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def test_a_stream_is_finished_while_probes_hear_that_the_server_drains(busy):
    running, stream = busy
    running.child.send_signal(signal.SIGTERM)
    running.wait_for("stopping: requests that run may finish, a second signal stops at once")
    end = time.monotonic() + 10
    while status_of(f"{running.url}/readyz")[0] != 503:
        assert time.monotonic() < end
    assert "draining" in status_of(f"{running.url}/readyz")[1]
    assert status_of(f"{running.url}/livez")[0] == 200
    assert status_of(f"{running.url}/metrics")[0] == 200
    refused = status_of(f"{running.url}/v1/completions", b'{"prompt": "x"}')
    assert refused[0] == 503 and refused[2]["Retry-After"] == "1"
    assert "draining" in json.loads(refused[1])["error"]["message"]
    assert stream.read().endswith(b"data: [DONE]\n\n")
    assert running.child.wait(30) == 0


def test_a_second_signal_stops_at_once_and_says_so(busy):
    running, stream = busy
    reader = threading.Thread(target=lambda: stream.read(1), daemon=True)
    reader.start()
    running.child.send_signal(signal.SIGINT)
    running.wait_for("stopping: requests that run may finish, a second signal stops at once")
    running.child.send_signal(signal.SIGINT)
    running.wait_for("stopped at once by a second signal: what still ran is cut off")
    assert running.child.wait(5) == 130


def test_what_the_drain_timeout_cuts_off_is_told(tmp_path):
    config = serve_config(tmp_path / "c.yaml", drain_timeout="300ms")
    running = Server("--config", config)
    body = {"model": MODEL_ID, "prompt": "Count:", "max_tokens": 4000, "ignore_eos": True, "stream": True}
    request = urllib.request.Request(f"{running.url}/v1/completions", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    with urllib.request.urlopen(request) as stream:
        assert first_data(stream).startswith(b"data: ")
        running.child.send_signal(signal.SIGTERM)
        *_, last, done = [event for event in stream.read().split(b"\n\n") if event.strip()]
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"].startswith("the server stopped")
    assert done == b"data: [DONE]"
    assert running.child.wait(10) == 0
