"""The rank processes of a node, as the system shows them."""
import os
import pathlib
import time


def rank_pids(node_pid):
    """{rank: pid} of the children of a node's process."""
    found = {}
    for task in pathlib.Path(f"/proc/{node_pid}/task").iterdir():
        for child in _read(task / "children").split():
            arguments = _read(pathlib.Path("/proc") / child / "cmdline").split("\0")
            if "rank" in arguments[1:2]:
                found[int(arguments[arguments.index("--rank") + 1])] = int(child)
    return found


def wait_for_ranks(node_pid, count, other_than=(), timeout_s=30):
    """rank_pids once there are `count` that run, none of them of `other_than`."""
    end = time.monotonic() + timeout_s
    while True:
        pids = rank_pids(node_pid)
        if len(pids) == count and not set(pids.values()) & set(other_than):
            return pids
        assert time.monotonic() < end, f"the node has the ranks {pids}"
        time.sleep(0.02)


def state(pid):
    """One letter as in /proc/PID/stat; "" if there is no such process or only its remains."""
    text = _read(pathlib.Path(f"/proc/{pid}/stat"))
    letter = text.rpartition(")")[2].split()[0] if text else ""
    return "" if letter in "ZX" else letter


def wait_until_gone(pids, timeout_s=10):
    end = time.monotonic() + timeout_s
    while left := [pid for pid in pids if state(pid)]:
        assert time.monotonic() < end, f"processes left behind: {left}"
        time.sleep(0.02)


def listening_ports(pids):
    """The TCP ports on which these processes listen."""
    sockets = set()
    for pid in pids:
        try:
            links = [os.readlink(link) for link in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue  # it has ended, or closed one meanwhile
        sockets |= {link[len("socket:["):-1] for link in links if link.startswith("socket:[")}
    rows = [line.split() for line in _read(pathlib.Path("/proc/net/tcp")).splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and row[9] in sockets}


def _read(path):
    try:
        return path.read_text()
    except OSError:
        return ""
