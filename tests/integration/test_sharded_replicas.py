"""A model sharded over rank processes gives the very tokens of one process."""
import json
import pathlib
import re
import subprocess
import urllib.request

import pytest

import streams
from conftest import MODEL, MODEL_ID, MUSELET, Server, serve_config
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


@pytest.mark.parametrize("tensor,pipeline", [(1, 2), (2, 1), (3, 1), (1, 3), (1, 4), (2, 2)])
def test_tokens_equal_those_of_one_process(whole, server, tmp_path, tensor, pipeline):
    running = Server("--config", sharded_config(tmp_path / "config.yaml", tensor, pipeline))
    ranks = rank_pids(running.child.pid)
    assert sorted(ranks) == list(range(tensor * pipeline))
    assert audit(whole, streams.run(running.http, STREAMS, TOKENS)) == []
    assert fingerprint(running.http) == fingerprint(server.http)
    assert running.stop() == 0
    wait_until_gone(ranks.values())


def inspect(*arguments):
    done = subprocess.run([MUSELET, "model", "inspect", MODEL, *map(str, arguments)], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_inspect_prints_the_plan_with_bytes_for_every_rank():
    lines = {line.split()[0]: line for line in inspect("--tensor", 2, "--pipeline", 2).splitlines() if line}
    weights = [float(re.search(r"([\d.]+) MiB", lines[str(rank)]).group(1)) for rank in range(4)]
    whole = float(re.search(r"([\d.]+) MiB", lines["all"]).group(1))
    assert sum(weights) == pytest.approx(whole, abs=0.3)
    assert max(weights) < 0.35 * whole


@pytest.mark.parametrize("tensor,pipeline,problem", [(5, 1, "sizes that fit: 1, 2, 3"), (1, 31, "30 layers"),
                                                     (9, 2, "sizes that fit: 1, 2, 3")])
def test_what_cannot_be_sharded_is_refused_with_one_line(tmp_path, tensor, pipeline, problem):
    config = sharded_config(tmp_path / "config.yaml", tensor, pipeline, kv={"bytes": "16MiB"})
    for command in (["config", "check", "--config", config], ["serve", "--config", config]):
        done = subprocess.run([MUSELET, *map(str, command)], capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 2, (command, done.stdout, done.stderr)
        assert len(done.stderr.splitlines()) == 1 and problem in done.stderr, done.stderr


def weight_bytes(pid):
    """The anonymous memory of a process that has computed nothing: its weights, and little else."""
    anonymous = re.findall(r"^Anonymous: +(\d+) kB", pathlib.Path(f"/proc/{pid}/smaps").read_text(), re.M)
    return 1024 * sum(map(int, anonymous))


def test_each_rank_holds_its_slice_only(tmp_path):
    whole = Server("--config", serve_config(tmp_path / "whole.yaml", cpu={"threads": 1}))
    halves = Server("--config", sharded_config(tmp_path / "halves.yaml", 1, 2))
    of_ranks = [weight_bytes(pid) for pid in rank_pids(halves.child.pid).values()]
    assert max(of_ranks) < 0.55 * weight_bytes(whole.child.pid), of_ranks
    assert halves.stop() == 0 and whole.stop() == 0
