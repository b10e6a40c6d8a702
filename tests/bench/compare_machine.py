"""What a result must say about the machine and the programs it was measured with."""
import datetime
import hashlib
import os
import pathlib
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def load_average():
    return [round(value, 2) for value in os.getloadavg()]


def cpu_description():
    text = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    return {"name": fields.get("model name", "unknown"), "cpus": os.cpu_count(),
            "flags": fields.get("flags", fields.get("Features", ""))}


def _busy_and_total():
    fields = [int(value) for value in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def busy_cpus(seconds=2.0):
    """How many CPUs the machine's processes use now; what a virtual machine's host took counts too."""
    busy, total = _busy_and_total()
    time.sleep(seconds)
    busy_after, total_after = _busy_and_total()
    return os.cpu_count() * (busy_after - busy) / max(1, total_after - total)


def cpu_seconds(pid):
    """Processor time of all threads of a process so far, in nanosecond steps."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def describe(model, muselet, quick):
    digest = hashlib.sha256(pathlib.Path(model).read_bytes()).hexdigest()
    version = subprocess.run([muselet, "version"], check=True, capture_output=True, text=True).stdout.strip()
    return {"started": now(), "quick": quick, "commit": git("rev-parse", "HEAD"),
            "uncommitted_sources": bool(git("status", "--porcelain", "--untracked-files=no", "--", "base", "comms",
                                            "monitoring", "node", "scheduler")),
            "muselet": version, "model": pathlib.Path(model).name, "model_sha256": digest,
            "cpu": cpu_description(), "kernel": os.uname().release, "load_average": load_average(),
            "busy_cpus_before": round(busy_cpus(), 3)}
