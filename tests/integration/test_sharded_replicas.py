"""A model sharded over rank processes gives the very tokens of one process."""
import json
import subprocess
import urllib.request

import pytest

import streams
from conftest import MODEL, MODEL_ID, MUSELET, ROOT, Server, serve_config
from history_audit import audit
from rank_processes import rank_pids, wait_until_gone

STREAMS, TOKENS = 12, 24


def sharded_config(path, tensor, pipeline, **sections):
    devices = [f"cpu:{number}" for number in range(tensor * pipeline)]
    return serve_config(path, **{"nodes": [{"name": "n0", "devices": devices}],
                                 "replicas": [{"name": "r0", "model": MODEL_ID, "tensor": tensor,
                                               "pipeline": pipeline, "on": ["n0"]}],
                                 "cpu": {"threads": 1}, **sections})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The history of one process."""
    running = Server("--config", serve_config(tmp_path_factory.mktemp("whole") / "config.yaml"))
    history = streams.run(running.http, STREAMS, TOKENS)
    assert running.stop() == 0
    return history


def fingerprint(address):
    body = json.dumps({"model": MODEL_ID, "prompt": "Hello", "max_tokens": 1}).encode()
    request = urllib.request.Request(f"http://{address}/v1/completions", body, {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request))["system_fingerprint"]


@pytest.mark.parametrize("tensor,pipeline", [(1, 2), (2, 1), (3, 1), (1, 4), (2, 2)])
def test_tokens_equal_those_of_one_process(whole, server, tmp_path, tensor, pipeline):
    running = Server("--config", sharded_config(tmp_path / "config.yaml", tensor, pipeline))
    ranks = rank_pids(running.child.pid)
    assert sorted(ranks) == list(range(tensor * pipeline))
    assert audit(whole, streams.run(running.http, STREAMS, TOKENS)) == []
    assert fingerprint(running.http) == fingerprint(server.http)
    assert running.stop() == 0
    wait_until_gone(ranks.values())


def inspect(*arguments):
    return subprocess.run([MUSELET, "model", "inspect", MODEL, *map(str, arguments)], capture_output=True, text=True,
                          check=False)


def test_inspect_prints_the_plan_with_bytes_for_every_rank():
    done = inspect("--tensor", 2, "--pipeline", 2)
    assert done.returncode == 0, done.stderr
    for rank in range(4):
        assert any(line.split()[:1] == [str(rank)] for line in done.stdout.splitlines()), done.stdout


@pytest.mark.parametrize("tensor,pipeline", [(5, 1), (1, 31), (9, 40)])
def test_what_cannot_be_sharded_is_refused_with_one_line(tmp_path, tensor, pipeline):
    config = sharded_config(tmp_path / "config.yaml", tensor, pipeline)
    for command in (["config", "check", "--config", config], ["serve", "--config", config]):
        done = subprocess.run([MUSELET, *map(str, command)], capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 2, (command, done.stdout, done.stderr)
        assert "tensor" in done.stderr + done.stdout or "pipeline" in done.stderr + done.stdout


def test_the_examples_for_ranks_are_read(tmp_path):
    for name in ("two_ranks", "four_ranks", "two_hosts"):
        text = (ROOT / "deploy" / "config" / f"{name}.yaml").read_text()
        assert "ranks" in text or "pipeline" in text
