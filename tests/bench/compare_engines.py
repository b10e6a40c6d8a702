"""Runs the programs that are compared and gives what each of them reported."""
import collections
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import compare_machine
from serve_bench import Server, free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPTS = ROOT / "tests" / "bench" / "prompts" / "mt_bench.jsonl"
COMMAND_LIMIT_S = 600


def run(command, limit_s=COMMAND_LIMIT_S):
    """What `command` writes to stdout."""
    finished = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=limit_s)
    if finished.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {finished.returncode}\n{finished.stderr[-2000:]}")
    return finished.stdout


class Muselet:
    name = "muselet"

    def __init__(self, folder, model):
        self.program, self.model_bench, self.model = folder / "muselet", folder / "model_bench", model

    def forward(self, case, limits=False):
        """model_bench's report of one case."""
        with tempfile.NamedTemporaryFile(suffix=".json") as report:
            run([self.model_bench, self.model, "--json", report.name] + ([] if limits else ["--no-limits"]) + [case])
            result = json.loads(pathlib.Path(report.name).read_text())
        if not limits:
            for name in ("read_bytes_per_s", "f32_flops", "int8_ops"):
                del result[name]
        return result

    def serve(self):
        port = free_port()
        return Server(self.name, [str(self.program), "serve", str(self.model), "--http", f"127.0.0.1:{port}"], port,
                      "/readyz")

    def load(self, url, concurrency, requests, max_tokens):
        """What `muselet bench` reports of a server of either kind: the same client asks both."""
        with tempfile.NamedTemporaryFile(suffix=".json") as report:
            run([self.program, "bench", url, "--concurrency", concurrency, "--requests", requests, "--max-tokens",
                 max_tokens, "--prompts", PROMPTS, "--temperature", "0", "--ignore-eos", "--warmup", "1", "--quiet",
                 "--json", report.name])
            return json.loads(pathlib.Path(report.name).read_text())


class LlamaCpp:
    """The peer, with the thread and batch options that tuning chose (`options`)."""
    name = "llama.cpp"

    def __init__(self, folder, model):
        self.folder, self.model = folder, model

    def version(self):
        return run([self.folder / "llama-bench", "--version"]).strip()

    def single(self, test, options, repetitions=1):
        """llama-bench: `test` is ["-n", 128] or ["-p", 512]; the other kind is switched off."""
        off = ["-p", 0] if "-n" in test else ["-n", 0]
        text = run([self.folder / "llama-bench", "-m", self.model, *off, *test, "-r", repetitions, "-o", "json",
                    *options])
        return json.loads(text)[0]

    def batched(self, sequences, prompt_tokens, answer_tokens, options):
        context = sequences * (prompt_tokens + answer_tokens) + 256
        text = run([self.folder / "llama-batched-bench", "-m", self.model, "-c", context, "-npp", prompt_tokens, "-ntg",
                    answer_tokens, "-npl", sequences, "--output-format", "jsonl", *options])
        return json.loads([line for line in text.splitlines() if line.startswith("{")][-1])

    def serve(self, slots, options):
        port = free_port()
        # Each slot gets the context that the longest of the prompts with its answer needs.
        command = [self.folder / "llama-server", "-m", self.model, "--port", port, "-np", slots, "-c", 1024 * slots,
                   *options]
        return Server(self.name, [str(word) for word in command], port, "/health")


class BusyProcess:
    """Another process of the machine that computes all the time, on whatever CPU the system gives it."""

    def __enter__(self):
        self.child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        time.sleep(0.5)
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()


# The body of a parallel loop is inlined into the pool's ParallelFor: that is work, the rest of the pool is not.
CLASSES = [("thread pool", r"^muselet::cpu::ThreadPool::(?!ParallelFor)"), ("kernels", r"^muselet::cpu::"),
           ("sampler", r"^muselet::(Sampler|GumbelNoise|PenaltyCounts|Portable)"), ("muselet", r"^muselet::")]


def symbol_class(symbol, module, classes=CLASSES):
    if module.startswith("["):
        return "operating system"
    return next((name for name, pattern in classes if re.search(pattern, symbol)), "libraries")


def profile(pid, load, classes=CLASSES):
    """Samples the processor time of a process while `load` runs; see shares()."""
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "perf.data")
        recorder = subprocess.Popen(["perf", "record", "-q", "-e", "cpu-clock", "-F", "997", "-p", str(pid),
                                     "-o", data], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.3)
        try:
            load()
        finally:
            recorder.send_signal(signal.SIGINT)
            recorder.wait(60)
        return shares(run(["perf", "script", "-i", data, "-F", "ip,sym,dso"]), classes)


def shares(perf_script, classes=CLASSES):
    """({class: share}, {symbol: share} of the largest, samples) of the lines "ADDRESS SYMBOL (MODULE)"."""
    hits, symbols = collections.Counter(), collections.Counter()
    for line in perf_script.splitlines():
        match = re.match(r"^\s*[0-9a-f]+ (.*) \((\S+)\)$", line)
        if match:
            symbol, module = match.groups()
            hits[symbol_class(symbol, module, classes)] += 1
            symbols[symbol[:120]] += 1
    total = sum(hits.values())
    return ({name: round(count / total, 5) for name, count in hits.most_common()},
            {name: round(count / total, 5) for name, count in symbols.most_common(25)}, total)


def idle_share(server, seconds):
    """Processor time of a server without requests, as a share of one core."""
    before = compare_machine.cpu_seconds(server.child.pid)
    begin = time.monotonic()
    time.sleep(seconds)
    return (compare_machine.cpu_seconds(server.child.pid) - before) / (time.monotonic() - begin)
