"""A cluster whose wires leave loopback, by their addresses: every process with a key of its own."""
import importlib.util
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from openai import OpenAI

from conftest import MODEL, MODEL_ID, MUSELET, ROOT, Process, free_port, write_config


def load_example():
    path = ROOT / "deploy" / "examples" / "rpc_client.py"
    spec = importlib.util.spec_from_file_location("secured_rpc_client", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rpc_client = load_example()


def make_key(folder, name):
    """The public key of a new pair, NAME.key and NAME.pub."""
    made = subprocess.run([str(MUSELET), "keys", "generate", "--out", str(folder / name)],
                          check=True, capture_output=True, text=True)
    return made.stdout.strip()


class SecuredCluster:
    """s0, n0 and g0 on 0.0.0.0, which is reached from this machine alone here."""

    def __init__(self, folder):
        self.folder = folder
        self.keys = {name: make_key(folder, name) for name in ("s0", "n0", "g0", "chat", "stranger")}
        self.http = f"127.0.0.1:{free_port()}"
        self.rpc = f"tcp://0.0.0.0:{free_port()}"
        self.metrics = f"127.0.0.1:{free_port()}"
        self.config = write_config(
            folder / "cluster.yaml",
            cluster="secured",
            models=[{"id": MODEL_ID, "path": str(MODEL)}],
            gateways=[{"name": "g0", "http": self.http, "rpc": self.rpc,
                       "public_key": self.keys["g0"]}],
            schedulers=[{"name": "s0", "rpc": f"tcp://0.0.0.0:{free_port()}",
                         "metrics": self.metrics, "public_key": self.keys["s0"]}],
            nodes=[{"name": "n0", "host": "0.0.0.0", "public_key": self.keys["n0"]}],
            security={"front_end_keys_file": "chat.pub"},
            cpu={"threads": 1})
        self.processes = {}

    def start(self, name, key=None):
        self.processes[name] = Process("run", "--config", self.config, "--name", name,
                                       "--security-key-file", self.folder / f"{key or name}.key")

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.http}/readyz", timeout=5) as response:
                return response.status == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def wait_until_ready(self):
        end = time.monotonic() + 120
        while not self.ready():
            assert time.monotonic() < end, "the cluster does not become ready"
            time.sleep(0.05)

    def stop(self):
        return [process.stop() for process in self.processes.values()]


@pytest.fixture
def cluster(tmp_path):
    made = SecuredCluster(tmp_path)
    yield made
    made.stop()


def test_processes_with_known_keys_serve_and_others_stay_outside(cluster):
    cluster.start("s0")
    cluster.start("n0", key="stranger")
    refusal = cluster.processes["s0"].wait_for(
        "refused a connection: its key is not known here (security.known_keys_file)")
    assert refusal["key"] == cluster.keys["stranger"]
    assert cluster.processes.pop("n0").stop() == 0
    cluster.start("n0")
    cluster.start("g0")
    cluster.wait_until_ready()

    client = OpenAI(base_url=f"http://{cluster.http}/v1", api_key="none")
    answer = client.completions.create(model=MODEL_ID, prompt="Once upon a time", max_tokens=8)
    assert answer.usage.completion_tokens == 8

    with rpc_client.Client(cluster.rpc, server_key=cluster.keys["g0"],
                           key_file=cluster.folder / "chat.key") as front_end:
        chunks = list(front_end.generate(messages=[("user", "Hello")], max_tokens=4))
        assert chunks[-1].usage.generation_tokens == 4
    for keys in ({}, {"server_key": cluster.keys["g0"],
                      "key_file": cluster.folder / "stranger.key"}):
        with rpc_client.Client(cluster.rpc, **keys) as outsider:
            with pytest.raises(rpc_client.RpcError):
                list(outsider.generate(messages=[("user", "Hello")], max_tokens=4))
    assert cluster.ready()
    assert client.completions.create(model=MODEL_ID, prompt="And", max_tokens=2).usage


def test_wires_off_loopback_without_a_key_are_refused_at_start(cluster):
    refused = subprocess.run([str(MUSELET), "run", "--config", str(cluster.config), "--name", "s0"],
                             capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "is not a loopback address (give every process a key with security.key_file" \
        in refused.stderr
