#!/usr/bin/env python3
"""Where the time of one decode step goes, at batch 1 and 32, and how far each phase is from the machine's limit.

perf samples the processor time of model_bench while it computes steps; a sample belongs to a phase by the function it
fell in. The limit of a phase is the time that the machine needs at least: for products the greater of reading the
weights once and of the multiplications at the measured int8 rate, for attention reading the keys and values; the other
phases work in the caches on data that is there anyway: their limit is zero.

Usage: step_profile.py [--programs DIR] OUTPUT
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import compare_engines
import compare_machine

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "build" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
# (sequences, steps, first position)
STEPS = [(1, 900, 100), (32, 120, 100)]
PHASES = [("waiting in the thread pool", r"^muselet::cpu::ThreadPool::(?!ParallelFor)"),
          ("products", r"^muselet::cpu::.*(MatMul|Multiply|Panel|Product)"),
          ("attention", r"^muselet::cpu::.*(Attend|Attention|Score|SumValues|MergeChunk|Softmax)"),
          ("rounding to int8", r"^muselet::cpu::.*Quantize"), ("norm", r"^muselet::cpu::.*Norm"),
          ("activation", r"^muselet::cpu::.*Silu"),
          ("rotation, key/value write", r"^muselet::cpu::.*(Rope|Rotate|KvWrite)"),
          ("other row operations", r"^muselet::cpu::"), ("model and program", r"^muselet::")]


def measure(program, sequences, steps, position):
    """(model_bench's report, {phase: share of processor time}, {function: share}, samples)."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        child = subprocess.Popen([program, MODEL, "--no-limits", "--json", report.name,
                                  f"decode:{sequences}:{steps}:{position}"], stdout=subprocess.PIPE, text=True)
        for line in child.stdout:
            if "loaded in" in line:
                break
        phases, symbols, samples = compare_engines.profile(child.pid, lambda: child.stdout.read(), PHASES)
        if child.wait() != 0 or not samples:
            sys.exit(f"{program} ended with {child.returncode} after {samples} samples")
        return json.loads(pathlib.Path(report.name).read_text()), phases, symbols, samples


def limits_s(report, limits, sequences, depth):
    """Seconds that one step needs at least, by phase."""
    operations = 2 * report["parameter_count"] * sequences
    reads = {"products": report["weight_bytes"], "attention": report["kv_bytes_per_token"] * depth * sequences}
    bound = {phase: size / limits["read_bytes_per_s"] for phase, size in reads.items()}
    bound["products"] = max(bound["products"], operations / limits["int8_ops"])
    return bound


def section(sequences, steps, position, program, limits):
    report, phases, symbols, samples = measure(program, sequences, steps, position)
    case = report["cases"][0]
    step_s = case["seconds"] / steps
    bound = limits_s(report, limits, sequences, position + steps / 2)
    lines = [f"## {sequences} sequence{'s' if sequences > 1 else ''}", "",
             f"{1e3 * step_s:.3f} ms a step, {case['tokens_per_s']:.0f} tok/s; the limits of the phases together "
             f"{1e3 * sum(bound.values()):.3f} ms: {100 * sum(bound.values()) / step_s:.0f} % of the limit reached. "
             f"Positions {position} to {position + steps}; {samples} samples.", "",
             "| phase | share | ms a step | limit, ms | times the limit |", "| --- | --- | --- | --- | --- |"]
    for phase, share in phases.items():
        spent, least = share * step_s, bound.get(phase, 0)
        lines.append(f"| {phase} | {100 * share:.1f} % | {1e3 * spent:.3f} | {1e3 * least:.3f} | "
                     f"{f'{spent / least:.2f}' if least else ''} |")
    lines += ["", "The largest functions:", "", "| share | function |", "| --- | --- |"]
    for symbol, share in list(symbols.items())[:10]:
        lines.append(f"| {100 * share:.1f} % | `{re.sub(r'[|`]', ' ', symbol)}` |")
    return lines + [""]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--programs", type=pathlib.Path, default=ROOT / "build" / "release" / "bin")
    options = parser.parse_args()
    program = options.programs / "model_bench"
    busy = compare_machine.busy_cpus()
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        compare_engines.run([program, MODEL, "--json", report.name, "decode:1:8:0"])
        limits = json.loads(pathlib.Path(report.name).read_text())
    cpu = compare_machine.cpu_description()
    lines = ["# Profile of a decode step", "",
             "Made by `tests/bench/profile.sh` (how: see there and in `step_profile.py`).", "",
             f"- {compare_machine.now()}, commit {compare_machine.git('rev-parse', '--short=12', 'HEAD')}, "
             f"{MODEL.name}, {limits['numerics_id']}, {limits['device']}",
             f"- {cpu['name']}, {cpu['cpus']} CPUs; flags: {cpu['flags']}",
             f"- reads {limits['read_bytes_per_s'] / 1e9:.1f} GB/s, {limits['int8_ops'] / 1e9:.0f} GOP/s in int8; "
             f"{busy:.2f} CPUs were busy with other things at the start", ""]
    if busy > 0.1:
        lines[-1:-1] = ["- **The machine was not idle: times and limits are unsure, shares less so.**"]
    for sequences, steps, position in STEPS:
        lines += section(sequences, steps, position, program, limits)
    options.output.write_text("\n".join(lines).rstrip("\n") + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
