"""Ranks are killed, stopped and cut off at random moments under load: every stream ends with the tokens of the
undisturbed run. MUSELET_TEST_LONG: fifty times instead of five; MUSELET_TEST_SEED repeats a run."""
import os
import random
import signal
import socket
import struct
import threading
import time
import urllib.error
import urllib.request

import pytest
import zmq

import streams
from conftest import MODEL, MODEL_ID, ROOT, Process, Server, free_port, write_config
from history_audit import audit
from rank_processes import listening_ports, rank_pids, state, wait_for_ranks, wait_until_gone
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


def losses(address):
    """How many epochs of ranks have ended."""
    page = urllib.request.urlopen(f"http://{address}/metrics").read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines()
               if line.startswith("muselet_rank_losses_total{"))


def wait_until(condition, what, timeout_s=40):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.05)


def send(pid, number):
    """The rank may have ended by itself: it does when a neighbour it joins with has just died."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def kill(draw, pids):
    send(draw.choice(sorted(pids.values())), signal.SIGKILL)


def stop_for(seconds):
    def stop(draw, pids):
        pid = draw.choice(sorted(pids.values()))
        os.kill(pid, signal.SIGSTOP)
        timer = threading.Timer(seconds, send, (pid, signal.SIGCONT))
        timer.daemon = True
        timer.start()
    return stop


# Name: (what is done, whether the epoch ends).
FAULTS = {"killed": (kill, True), "stopped 2 s": (stop_for(2), False), "stopped 20 s": (stop_for(20), True)}


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
        before = losses(running.http)
        load = streams.Load(running.http, STREAMS, 40)
        load.wait_for_tokens(draw.randrange(1, STREAMS * 30))
        act, ends_epoch = FAULTS[fault]
        act(draw, pids)
        assert audit(undisturbed, load.finish()) == [], (fault, SEED)
        if ends_epoch:
            wait_until(lambda: losses(running.http) > before, "the loss is counted")
    assert running.stop() == 0
    wait_until_gone(everyone)


def test_a_rank_that_dies_makes_the_replica_not_ready_until_it_is_back(tmp_path):
    running = Server("--config", sharded_config(tmp_path / "config.yaml", 1, 2))
    pids = wait_for_ranks(running.child.pid, 2)
    undisturbed = streams.run(running.http, 2, 8)
    os.kill(pids[1], signal.SIGSTOP)  # it cannot come back before its supervisor has killed it
    load = streams.Load(running.http, 2, 8)  # its steps make no progress from now on
    wait_until(lambda: not ready(running.http), "not ready", timeout_s=4)
    late = streams.Load(running.http, 2, 8)  # waits for the ranks
    wait_until(lambda: ready(running.http), "ready again")
    assert not state(pids[1])
    assert audit(undisturbed, load.finish()) == []
    assert audit(undisturbed, late.finish()) == []
    assert running.stop() == 0


def test_a_rank_that_is_killed_is_noticed_within_a_second(tmp_path):
    running = Server("--config", sharded_config(tmp_path / "config.yaml", 1, 2))
    os.kill(wait_for_ranks(running.child.pid, 2)[0], signal.SIGKILL)
    wait_until(lambda: losses(running.http) == 1, "the loss", timeout_s=1)
    wait_until(lambda: ready(running.http), "ready again")
    assert running.stop() == 0


def test_ranks_that_are_killed_while_they_join_come_together_in_the_end(tmp_path):
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    config = sharded_config(tmp_path / "config.yaml", 1, 3)
    running = Process("serve", "--config", config)
    killed = set()
    for _ in range(6):
        pids = wait_for_ranks(running.child.pid, 3, killed)
        time.sleep(draw.random() * 0.6)  # somewhere between the start and the first step
        kill(draw, pids)
        killed |= set(pids.values())
        killed -= {pid for pid in pids.values() if state(pid)}
    address = running.wait_for("ready")["http"]
    assert len(streams.run(address, 4, 8)) == 4 * 9
    assert running.stop() == 0


class NoiseMaker:
    """Connects to a port again and again, says nonsense, and goes."""

    def __init__(self, port):
        self.port, self.count, self._stopping = port, 0, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        draw = random.Random(SEED)
        while not self._stopping.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as strange:
                    strange.sendall(draw.choice([b"", draw.randbytes(200), b"GET / HTTP/1.1\r\n\r\n",
                                                 b"\xff\0\0\0\0\0\0\0\x01\x7f\3\0NULL" + bytes(48)]))
                    self.count += 1
            except OSError:
                self._stopping.wait(0.01)

    def stop(self):
        self._stopping.set()
        self._thread.join(5)


class PortScan(NoiseMaker):
    """Says nonsense on every port of some processes."""

    def __init__(self, pids_of):
        self.pids_of = pids_of
        super().__init__(port=0)

    def _run(self):
        draw = random.Random(SEED)
        frame = struct.pack("<6Q", 1 << 40, 99, 7, 1 << 50, 8, 8)  # as Gloo's
        while not self._stopping.wait(0.001):
            for port in listening_ports(self.pids_of()):
                try:
                    with socket.create_connection(("127.0.0.1", port), 1) as strange:
                        strange.sendall(draw.choice([b"", draw.randbytes(100), frame, b"GET / HTTP/1.1\r\n\r\n"]))
                        self.count += 1
                except OSError:
                    pass  # it is closed already


class TwoNodes:
    """A pipeline over two node processes, whose second one reaches the leader through a proxy."""

    def __init__(self, folder, follower_model=MODEL):
        rendezvous = self.rendezvous = free_port()
        self.proxy = TcpProxy(rendezvous)
        self.http = f"127.0.0.1:{free_port()}"
        self.scheduler = f"tcp://127.0.0.1:{free_port()}"
        leader = self.config(folder / "leader.yaml", rendezvous)
        follower = self.config(folder / "follower.yaml", self.proxy.port, follower_model)
        self.processes = {name: Process("run", "--config", config, "--name", name)
                          for name, config in (("s0", leader), ("n0", leader), ("n1", follower), ("g0", leader))}

    def wait_until_ready(self):
        wait_until(lambda: ready(self.http), "both nodes are ready")
        return self

    def config(self, path, rendezvous, model=MODEL, **sections):
        nodes = [{"name": "n0", "devices": ["cpu:0"], "ranks": f"tcp://127.0.0.1:{rendezvous}"},
                 {"name": "n1", "devices": ["cpu:0"]}]
        return write_config(path, models=[{"id": MODEL_ID, "path": str(model)}],
                            gateways=[{"name": "g0", "http": self.http}],
                            schedulers=[{"name": "s0", "rpc": self.scheduler}], nodes=nodes,
                            replicas=[{"name": "r0", "model": MODEL_ID, "pipeline": 2, "on": ["n0", "n1"]}],
                            cpu={"threads": 1}, **sections)

    def ranks(self):
        return {**rank_pids(self.processes["n0"].child.pid), **rank_pids(self.processes["n1"].child.pid)}

    def stop(self):
        for name in ("g0", "n0", "n1", "s0"):
            assert self.processes[name].stop() == 0, name
        self.proxy.close()


def test_streams_survive_a_rank_that_is_cut_off(tmp_path):
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    nodes = TwoNodes(tmp_path).wait_until_ready()
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
    nodes = TwoNodes(tmp_path).wait_until_ready()
    undisturbed = streams.run(nodes.http, STREAMS, 24)
    nodes.proxy.delay_s = 0.005
    assert audit(undisturbed, streams.run(nodes.http, STREAMS, 24)) == []
    nodes.stop()


def test_noise_on_the_port_where_ranks_join_does_no_harm(tmp_path):
    nodes = TwoNodes(tmp_path)
    noise = NoiseMaker(nodes.rendezvous)
    nodes.wait_until_ready()
    history = streams.run(nodes.http, 4, 16)
    wait_until(lambda: noise.count > 20, "some noise")
    noise.stop()
    assert audit(history, streams.run(nodes.http, 4, 16)) == []
    nodes.stop()


def test_a_scan_of_every_port_while_ranks_join_ends_no_rank(tmp_path):
    nodes = TwoNodes(tmp_path)
    names = ("n0", "n1")
    nodes.proxy.delay_s = 0.2  # rank 0 listens for so long, at least
    scan = PortScan(lambda: [*nodes.ranks().values()])
    nodes.wait_until_ready()
    for _ in range(10 if LONG else 3):
        os.kill(nodes.ranks()[1], signal.SIGKILL)
        wait_until(lambda: not ready(nodes.http), "the loss")
        wait_until(lambda: ready(nodes.http), "the next epoch")
    scan.stop()
    assert scan.count > 0
    nodes.stop()
    told = [line for name in names for line in nodes.processes[name].lines]
    assert not [line for line in told if "SIGABRT" in line or "stranger" in line]


def test_a_rank_with_another_model_is_refused_with_both_names(tmp_path):
    nodes = TwoNodes(tmp_path, ROOT / "tests" / "golden" / "gguf" / "llama-tied-gqa.F16.gguf")
    refused = nodes.processes["n1"]
    wait_until(lambda: any("digest" in line for line in refused.lines), "the refusal")
    assert not ready(nodes.http)
    nodes.stop()


OTHER_VERSION = b"\x08\x63"  # of the wire to the ranks: 99, and nothing else


def test_a_rank_of_another_release_is_refused_and_the_log_says_so_once(tmp_path):
    nodes = TwoNodes(tmp_path).wait_until_ready()
    leader = nodes.processes["n0"]
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.setsockopt(zmq.RCVTIMEO, 20_000)
        stranger.connect(f"tcp://127.0.0.1:{nodes.rendezvous}")
        for _ in range(10):
            stranger.send(OTHER_VERSION)
            assert stranger.recv_multipart()[-1][:1] == OTHER_VERSION[:1]
    wait_until(lambda: any("wire version 99" in line for line in leader.lines), "the refusal")
    assert ready(nodes.http)
    nodes.stop()
    assert sum("wire version 99" in line for line in leader.lines) == 1
    assert not any("rank group ended" in line for line in leader.lines), "an orderly stop is no warning"


def test_a_leader_of_another_release_is_left_and_the_log_says_so_once(tmp_path):
    nodes = TwoNodes.__new__(TwoNodes)
    nodes.http, nodes.scheduler = "127.0.0.1:1", f"tcp://127.0.0.1:{free_port()}"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as leader:
        leader.setsockopt(zmq.LINGER, 0)
        leader.setsockopt(zmq.RCVTIMEO, 60_000)
        port = leader.bind_to_random_port("tcp://127.0.0.1")
        follower = Process("run", "--config", nodes.config(tmp_path / "follower.yaml", port), "--name", "n1")
        processes = set()
        while len(processes) < 3:  # each start of the rank draws another identity
            peer = leader.recv_multipart()[0]
            processes.add(peer)
            leader.send_multipart([peer, OTHER_VERSION])
    wait_until(lambda: any("is of another release" in line for line in follower.lines), "the refusal")
    assert follower.stop() == 0
    told = [line for line in follower.lines if "is of another release" in line]
    assert len(told) == 1 and "wire version 99" in told[0], told


def test_a_follower_without_a_leader_says_whom_it_waits_for_and_stops_in_order(tmp_path):
    nodes = TwoNodes.__new__(TwoNodes)
    nodes.http, nodes.scheduler = "127.0.0.1:1", f"tcp://127.0.0.1:{free_port()}"
    port = free_port()
    config = nodes.config(tmp_path / "follower.yaml", port, ranks={"join_timeout": "2s"})
    follower = Process("run", "--config", config, "--name", "n1")
    wait_until(lambda: any(f"127.0.0.1:{port} does not answer" in line for line in follower.lines), "a line")
    ranks = wait_for_ranks(follower.child.pid, 1)
    assert follower.stop() == 0
    wait_until_gone(ranks.values())
