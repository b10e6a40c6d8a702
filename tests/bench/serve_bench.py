#!/usr/bin/env python3
"""Measures serving on this machine, side by side with llama.cpp's server if its path is given.

Both servers load the same file and get the same prompts from `muselet bench`; turns alternate between them, and the
table shows the median of each figure with the ratio. Also measured: the time from start to ready and the resident
memory.

Usage: serve_bench.py [--llama-server PATH] [--turns N] [--concurrency 1,8,32] [--max-tokens N] [--json FILE]
"""
import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
MUSELET = ROOT / "build" / "release" / "bin" / "muselet"
MODEL = ROOT / "build" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = ROOT / "tests" / "bench" / "prompts" / "mt_bench.jsonl"
READY_LIMIT_S = 120


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    wanted = {"avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"}
    flags = sorted(wanted & set(fields.get("flags", "").split()))
    return f"{fields.get('model name', 'unknown CPU')}, {os.cpu_count()} cores, {' '.join(flags)}"


class Server:
    """One server process; `ready_s` is the time from its start until it answers that it is ready."""

    def __init__(self, name, command, port, probe):
        self.name, self.url = name, f"http://127.0.0.1:{port}"
        begin = time.monotonic()
        self.child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                if urllib.request.urlopen(self.url + probe).status == 200:
                    break
            except (urllib.error.URLError, ConnectionError):
                pass
            if self.child.poll() is not None or time.monotonic() - begin > READY_LIMIT_S:
                sys.exit(f"{name} did not become ready")
            time.sleep(0.01)
        self.ready_s = time.monotonic() - begin

    def resident_mb(self):
        pages = int(pathlib.Path(f"/proc/{self.child.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 1e6

    def stop(self):
        self.child.terminate()
        self.child.wait(30)


def start_muselet():
    port = free_port()
    return Server("muselet", [str(MUSELET), "serve", str(MODEL), "--http", f"127.0.0.1:{port}"], port,
                  "/readyz")


def start_llama(path, concurrency):
    port = free_port()
    # Each slot gets the context that the longest of the prompts with its answer needs.
    command = [path, "-m", str(MODEL), "--port", str(port), "-np", str(concurrency),
               "-c", str(1024 * concurrency), "-t", str(os.cpu_count())]
    return Server("llama.cpp", command, port, "/health")


def bench(server, concurrency, max_tokens):
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        subprocess.run([str(MUSELET), "bench", server.url, "--concurrency", str(concurrency),
                        "--requests", str(max(8, 3 * concurrency)), "--max-tokens", str(max_tokens),
                        "--prompts", str(PROMPTS), "--temperature", "0", "--json", report.name],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return json.loads(pathlib.Path(report.name).read_text())


def measure(start, concurrency, max_tokens):
    server = start()
    try:
        result = bench(server, concurrency, max_tokens)
        return {"tokens_per_s": result["output_tokens_per_s"], "ttft_ms": result["ttft_ms"]["p50"],
                "itl_ms": result["itl_ms"]["p50"], "errors": sum(result["errors"].values()),
                "ready_s": server.ready_s, "resident_mb": server.resident_mb()}
    finally:
        server.stop()


def median(turns, key):
    return statistics.median(turn[key] for turn in turns)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-server")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--concurrency", default="1,8,32")
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--json")
    options = parser.parse_args()

    print(cpu())
    rows = []
    for concurrency in map(int, options.concurrency.split(",")):
        starts = {"muselet": start_muselet}
        if options.llama_server:
            starts["llama.cpp"] = lambda c=concurrency: start_llama(options.llama_server, c)
        turns = {name: [] for name in starts}
        for _ in range(options.turns):
            for name, start in starts.items():
                turns[name].append(measure(start, concurrency, options.max_tokens))
        for name, measured in turns.items():
            row = {"streams": concurrency, "server": name,
                   **{key: median(measured, key) for key in measured[0]}}
            rows.append(row)
            print("{streams:3d} streams  {server:10s} {tokens_per_s:8.1f} tok/s  TTFT p50 {ttft_ms:8.1f} ms  "
                  "ITL p50 {itl_ms:6.1f} ms  ready {ready_s:5.2f} s  RSS {resident_mb:6.1f} MB  "
                  "errors {errors:.0f}".format(**row), flush=True)
        if options.llama_server:
            ratio = rows[-2]["tokens_per_s"] / rows[-1]["tokens_per_s"]
            print(f"{concurrency:3d} streams  ratio {ratio:.2f}")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"cpu": cpu(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
