"""Two hosts, made of network namespaces and a pair of virtual Ethernet devices, one rank on each: keys, Gloo, and the
openai client end to end."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

import streams
from conftest import MODEL, MODEL_ID, MUSELET, Process, Server, serve_config, write_config
from history_audit import audit

HTTP = "127.0.0.1:8000"  # of a namespace of its own


class Hosts:
    """Two namespaces, 10.77.0.1 and 10.77.0.2."""

    def __init__(self):
        tag = f"mu{os.getpid()}"
        self.names = [f"{tag}a", f"{tag}b"]
        for name in self.names:
            self._ip("netns", "add", name)
        self._ip("link", "add", f"{tag}v0", "netns", self.names[0], "type", "veth", "peer", "name", f"{tag}v1", "netns",
                 self.names[1])
        for number, name in enumerate(self.names):
            device = f"{tag}v{number}"
            for words in (["addr", "add", f"10.77.0.{number + 1}/24", "dev", device], ["link", "set", device, "up"],
                          ["link", "set", "lo", "up"]):
                self._ip("-n", name, *words)

    def python(self, host, *arguments):
        done = subprocess.run(["ip", "netns", "exec", self.names[host], sys.executable, *map(str, arguments)],
                              capture_output=True, text=True, check=False, timeout=120,
                              cwd=pathlib.Path(__file__).parent)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self):
        for name in self.names:
            self._ip("netns", "del", name)

    @staticmethod
    def _ip(*arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts():
    made = Hosts()
    yield made
    made.close()


def test_a_pipeline_over_two_hosts_answers_as_one_process(hosts, tmp_path):
    subprocess.run([MUSELET, "keys", "generate", "--out", tmp_path / "cluster"], check=True, capture_output=True)
    config = write_config(
        tmp_path / "cluster.yaml", models=[{"id": MODEL_ID, "path": str(MODEL)}],
        gateways=[{"name": "g0", "http": HTTP}], schedulers=[{"name": "s0", "rpc": "tcp://10.77.0.1:5555"}],
        nodes=[{"name": "n0", "host": "10.77.0.1", "ranks": "tcp://10.77.0.1:5560"},
               {"name": "n1", "host": "10.77.0.2"}],
        replicas=[{"name": "r0", "model": MODEL_ID, "pipeline": 2, "on": ["n0", "n1"]}],
        security={"key_file": str(tmp_path / "cluster.key")}, ranks={"private_network": True}, cpu={"threads": 1})
    processes = [Process("run", "--config", config, "--name", name,
                         prefix=["ip", "netns", "exec", hosts.names[host]])
                 for name, host in (("s0", 0), ("n0", 0), ("n1", 1), ("g0", 0))]
    try:
        observed = [json.loads(line) for line in hosts.python(0, "two_hosts_client.py", HTTP).splitlines()]
    finally:
        codes = [process.stop() for process in reversed(processes)]
    whole = Server("--config", serve_config(tmp_path / "whole.yaml"))
    undisturbed = streams.run(whole.http, 8, 24)
    assert whole.stop() == 0
    assert audit(undisturbed, observed) == []
    assert codes == [0] * 4
