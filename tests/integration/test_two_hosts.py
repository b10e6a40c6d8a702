"""Two hosts, made of network namespaces and a pair of virtual Ethernet devices, one rank on each: keys, Gloo, the
openai client end to end, and a wire that is cut."""
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

import streams
import two_hosts_client
from conftest import MODEL, MODEL_ID, MUSELET, Process, Server, serve_config, write_config
from history_audit import audit

HTTP = "127.0.0.1:8000"  # of a namespace of its own


class Hosts:
    """Two namespaces, 10.77.0.1 and 10.77.0.2."""

    def __init__(self):
        tag = self.tag = f"mu{os.getpid()}"
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
        return subprocess.Popen(["ip", "netns", "exec", self.names[host], sys.executable, *map(str, arguments)],
                                stdout=subprocess.PIPE, text=True, cwd=pathlib.Path(__file__).parent)

    def set_wire(self, state):
        """"up" or "down": while it is down nothing passes between the hosts, and nobody is told."""
        self._ip("-n", self.names[1], "link", "set", f"{self.tag}v1", state)

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


def observe(hosts):
    """The histories of two loads; in the middle of the second the wire is cut for 5 s."""
    client = hosts.python(0, "two_hosts_client.py", HTTP)
    histories = []
    for line in client.stdout:
        if line != "under way\n":
            histories[-1].append(json.loads(line))
            continue
        histories.append([])
        if len(histories) == 2:
            hosts.set_wire("down")
            timer = threading.Timer(5, hosts.set_wire, ["up"])
            timer.start()
    assert client.wait(10) == 0
    timer.join()
    return histories


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
        first, second = observe(hosts)
    finally:
        codes = [process.stop() for process in reversed(processes)]
    whole = Server("--config", serve_config(tmp_path / "whole.yaml"))
    undisturbed = streams.run(whole.http, two_hosts_client.STREAMS, two_hosts_client.TOKENS)
    assert whole.stop() == 0
    assert audit(undisturbed, first) == []
    assert audit(undisturbed, second) == [], "the wire was cut"
    assert codes == [0] * 4
