"""Ranks are killed, stopped and cut off at random moments under load: every stream ends with the tokens of the
undisturbed run. MUSELET_TEST_LONG: fifty times instead of five; MUSELET_TEST_SEED repeats a run."""
import os
import random
import signal
import threading
import time
import urllib.error
import urllib.request

import pytest

import streams
from conftest import MODEL, MODEL_ID, Process, Server, free_port, write_config
from history_audit import audit
from rank_processes import rank_pids, state, wait_for_ranks, wait_until_gone
from tcp_proxy import TcpProxy
from test_sharded_replicas import sharded_config

LONG = os.environ.get("MUSELET_TEST_LONG") not in (None, "", "0")
SEED = int(os.environ.get("MUSELET_TEST_SEED") or random.SystemRandom().randrange(1 << 30))
STREAMS = 16


def ready(address):
    try:
        return urllib.request.urlopen(f"http://{address}/readyz").status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def wait_until(condition, what, timeout_s=40):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.05)


def kill(draw, pids):
    os.kill(draw.choice(sorted(pids.values())), signal.SIGKILL)


def stop_for(seconds):
    def stop(draw, pids):
        pid = draw.choice(sorted(pids.values()))
        os.kill(pid, signal.SIGSTOP)

        def go_on():
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        timer = threading.Timer(seconds, go_on)
        timer.daemon = True
        timer.start()
    return stop


FAULTS = {"killed": kill, "stopped 2 s": stop_for(2), "stopped 20 s": stop_for(20)}


@pytest.mark.parametrize("tensor,pipeline", [(1, 2), (2, 1)])
def test_streams_survive_the_loss_of_a_rank(tmp_path, tensor, pipeline):
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    running = Server("--config", sharded_config(tmp_path / "config.yaml", tensor, pipeline))
    count = tensor * pipeline
    undisturbed = streams.run(running.http, STREAMS, 40)
    faults = ["killed", "stopped 2 s", "stopped 20 s"] + draw.choices(list(FAULTS), k=20 if LONG else 0)
    everyone = set()
    for fault in faults:
        pids = wait_for_ranks(running.child.pid, count)
        everyone |= set(pids.values())
        wait_until(lambda: ready(running.http), "ready")
        load = streams.Load(running.http, STREAMS, 40)
        load.wait_for_tokens(draw.randrange(1, STREAMS * 30))
        FAULTS[fault](draw, pids)
        assert audit(undisturbed, load.finish()) == [], (fault, SEED)
    assert running.stop() == 0
    wait_until_gone(everyone)


def test_a_rank_that_dies_makes_the_replica_not_ready_until_it_is_back(tmp_path):
    running = Server("--config", sharded_config(tmp_path / "config.yaml", 1, 2))
    pids = wait_for_ranks(running.child.pid, 2)
    os.kill(pids[1], signal.SIGSTOP)  # it cannot come back before its supervisor has killed it
    wait_until(lambda: not ready(running.http), "not ready")
    wait_until(lambda: ready(running.http), "ready again")
    assert not state(pids[1])
    assert running.stop() == 0


def test_no_rank_outlives_a_node_that_is_killed(tmp_path):
    running = Server("--config", sharded_config(tmp_path / "config.yaml", 2, 2))
    pids = wait_for_ranks(running.child.pid, 4)
    running.stop(signal.SIGKILL)
    wait_until_gone(pids.values())


class TwoNodes:
    """A pipeline over two node processes, whose second one reaches the leader through a proxy."""

    def __init__(self, folder):
        rendezvous = free_port()
        self.proxy = TcpProxy(rendezvous)
        self.http = f"127.0.0.1:{free_port()}"
        self.scheduler = f"tcp://127.0.0.1:{free_port()}"
        leader = self.config(folder / "leader.yaml", rendezvous)
        follower = self.config(folder / "follower.yaml", self.proxy.port)
        self.processes = {name: Process("run", "--config", config, "--name", name)
                          for name, config in (("s0", leader), ("n0", leader), ("n1", follower), ("g0", leader))}
        wait_until(lambda: ready(self.http), "both nodes are ready")

    def config(self, path, rendezvous):
        nodes = [{"name": "n0", "devices": ["cpu:0"], "ranks": f"tcp://127.0.0.1:{rendezvous}"},
                 {"name": "n1", "devices": ["cpu:0"]}]
        return write_config(path, models=[{"id": MODEL_ID, "path": str(MODEL)}],
                            gateways=[{"name": "g0", "http": self.http}],
                            schedulers=[{"name": "s0", "rpc": self.scheduler}], nodes=nodes,
                            replicas=[{"name": "r0", "model": MODEL_ID, "pipeline": 2, "on": ["n0", "n1"]}],
                            cpu={"threads": 1})

    def ranks(self):
        return {**rank_pids(self.processes["n0"].child.pid), **rank_pids(self.processes["n1"].child.pid)}

    def stop(self):
        for name in ("g0", "n0", "n1", "s0"):
            assert self.processes[name].stop() == 0, name
        self.proxy.close()


def test_streams_survive_a_rank_that_is_cut_off(tmp_path):
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    nodes = TwoNodes(tmp_path)
    undisturbed = streams.run(nodes.http, STREAMS, 40)
    everyone = set(nodes.ranks().values())
    for cut_s in [0, 5] + [draw.choice([0, 1, 5, 8]) for _ in range(10 if LONG else 0)]:
        wait_until(lambda: ready(nodes.http), "ready")
        load = streams.Load(nodes.http, STREAMS, 40)
        load.wait_for_tokens(draw.randrange(1, STREAMS * 30))
        nodes.proxy.cut(cut_s)
        assert audit(undisturbed, load.finish()) == [], (cut_s, SEED)
        everyone |= set(nodes.ranks().values())
    nodes.stop()
    wait_until_gone(everyone)


def test_streams_pass_over_a_slow_wire(tmp_path):
    nodes = TwoNodes(tmp_path)
    undisturbed = streams.run(nodes.http, STREAMS, 24)
    nodes.proxy.delay_s = 0.005
    assert audit(undisturbed, streams.run(nodes.http, STREAMS, 24)) == []
    nodes.stop()
