"""The same config as four processes over tcp: a gateway, a scheduler, two nodes; some of them killed mid-stream."""
import json
import signal
import time
import urllib.error
import urllib.request

import pytest
from openai import OpenAI

from conftest import MODEL, MODEL_ID, Process, free_port, write_config

PROMPT = "Once upon a time, in a small village by the sea,"
ANSWER = dict(model=MODEL_ID, prompt=PROMPT, temperature=0.8, seed=11, max_tokens=200,
              extra_body={"ignore_eos": True})


class Cluster:
    """g0, s0, n0, n1 of one config file, each in its own process."""

    def __init__(self, folder):
        self.http = f"127.0.0.1:{free_port()}"
        self.config = write_config(
            folder / "cluster.yaml",
            cluster="test",
            models=[{"id": MODEL_ID, "path": str(MODEL)}],
            gateways=[{"name": "g0", "http": self.http}],
            schedulers=[{"name": "s0", "rpc": f"tcp://127.0.0.1:{free_port()}",
                         "metrics": f"127.0.0.1:{free_port()}"}],
            nodes=[{"name": "n0", "host": "127.0.0.1", "metrics": f"127.0.0.1:{free_port()}"},
                   {"name": "n1", "host": "127.0.0.1", "metrics": f"127.0.0.1:{free_port()}"}],
            replicas=[{"name": "r0", "model": MODEL_ID, "on": ["n0"]},
                      {"name": "r1", "model": MODEL_ID, "on": ["n1"]}],
            cpu={"threads": 1})
        self.entries = json.loads(self.config.read_text())
        self.processes = {}
        for name in ("s0", "n0", "n1", "g0"):
            self.start(name)
        self.wait_until_ready()

    def start(self, name):
        self.processes[name] = Process("run", "--config", self.config, "--name", name)

    def metrics_address(self, name):
        for entry in self.entries["schedulers"] + self.entries["nodes"]:
            if entry["name"] == name:
                return entry["metrics"]
        return self.http

    def page(self, name, path="/metrics"):
        return urllib.request.urlopen(f"http://{self.metrics_address(name)}{path}").read().decode()

    def metric(self, name, series):
        return sum(float(line.rsplit(" ", 1)[1]) for line in self.page(name).splitlines()
                   if line.startswith(series))

    def wait_until_ready(self, timeout_s=60):
        self.wait(lambda: self.metric("s0", "muselet_scheduler_replicas_ready{") == 2
                  and self.page("g0", "/readyz") is not None, timeout_s)

    def wait(self, condition, timeout_s=30):
        end = time.monotonic() + timeout_s
        while True:
            try:
                if condition():
                    return
            except (urllib.error.URLError, ConnectionError):
                pass
            for name, process in self.processes.items():
                assert process.child.poll() is None, (name, process.lines[-5:])
            assert time.monotonic() < end, "the cluster did not get there in time"
            time.sleep(0.05)

    def client(self):
        return OpenAI(base_url=f"http://{self.http}/v1", api_key="none", max_retries=0)

    def stop(self):
        for process in self.processes.values():
            process.stop(signal.SIGKILL)


@pytest.fixture
def cluster(tmp_path):
    running = Cluster(tmp_path)
    yield running
    running.stop()


def stream_and(client, at_chunk, action):
    """The text of a streamed answer during which `action` is called once."""
    text, finish = "", None
    for count, chunk in enumerate(client.completions.create(stream=True, **ANSWER)):
        if count == at_chunk:
            action()
        if chunk.choices:
            text += chunk.choices[0].text
            finish = chunk.choices[0].finish_reason or finish
    return text, finish


def test_every_process_serves_its_metrics_and_probes(cluster):
    for name in ("g0", "s0", "n0", "n1"):
        assert "muselet_build_info" in cluster.page(name)
        assert cluster.page(name, "/livez") is not None
        assert cluster.page(name, "/readyz") is not None


def test_a_node_killed_mid_stream_changes_nothing_for_the_client(cluster):
    client = cluster.client()
    undisturbed = client.completions.create(**ANSWER).choices[0].text

    def kill_the_busy_node():
        busy = [name for name in ("n0", "n1")
                if cluster.metric(name, "muselet_sequences_running{") > 0]
        cluster.processes.pop(busy[0]).stop(signal.SIGKILL)

    text, finish = stream_and(client, 20, kill_the_busy_node)
    assert text == undisturbed
    assert finish == "length"
    assert cluster.metric("g0", "muselet_request_retries_total") == 1


def test_a_restarted_scheduler_is_found_again_and_streams_do_not_notice(cluster):
    client = cluster.client()
    undisturbed = client.completions.create(**ANSWER).choices[0].text

    def restart_the_scheduler():
        cluster.processes.pop("s0").stop(signal.SIGKILL)
        cluster.start("s0")

    text, finish = stream_and(client, 20, restart_the_scheduler)
    assert (text, finish) == (undisturbed, "length")
    cluster.wait_until_ready()
    assert client.completions.create(**ANSWER).choices[0].text == undisturbed


def test_without_a_node_the_service_says_that_it_is_not_ready(cluster):
    for name in ("n0", "n1"):
        cluster.processes.pop(name).stop(signal.SIGKILL)

    def not_ready():
        try:
            cluster.page("g0", "/readyz")
            return False
        except urllib.error.HTTPError as error:
            return error.code == 503
    cluster.wait(not_ready)


def test_sigterm_ends_every_process_cleanly(cluster):
    for name in ("g0", "n0", "n1", "s0"):
        assert cluster.processes.pop(name).stop(signal.SIGTERM) == 0
