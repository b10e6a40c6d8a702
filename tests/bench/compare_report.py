#!/usr/bin/env python3
"""Makes RESULTS.md from the raw JSON that compare.py wrote. A function of the files alone: a test regenerates it.

Usage: compare_report.py RESULTS_FOLDER RESULTS.md
"""
import json
import pathlib
import statistics
import sys

# case: (title, floor, goal) of our median over the peer's.
RATIOS = {
    "decode_1": ("decode, 1 stream (llama-bench tg128)", 2.0, None),
    "decode_8": ("decode, 8 streams (llama-batched-bench)", 2.5, 4.0),
    "decode_32": ("decode, 32 streams (llama-batched-bench)", 3.5, 5.0),
    "prefill_512": ("prefill, 512 tokens (llama-bench pp512)", 2.5, 4.0),
    "server_1": ("server, MT-bench prompts, 1 stream (llama-server)", 2.0, 3.0),
    "server_8": ("server, MT-bench prompts, 8 streams (llama-server)", 3.0, 4.0),
    "server_32": ("server, MT-bench prompts, 32 streams (llama-server)", 3.5, 5.0),
}
READ_BOUND_GOAL = 0.85
INTRODUCTION = [
    "Made by `tests/bench/compare.sh` from the raw reports in `results/` (`tests/bench/compare_report.py`); a test",
    "fails when the two differ. Medians; muselet and llama.cpp in turns, same file, prompts and answer lengths,",
    "default mode; llama.cpp with its best options of those tried."]
PROFILE_METHOD = [
    "`perf record` of the server process (cpu-clock, 997 Hz) over one load of `muselet bench`; a sample belongs to the",
    "kernels if its function is in `node/cpu`, the waiting of the thread pool left out."]


def load(folder):
    return {path.stem: json.loads(path.read_text()) for path in sorted(pathlib.Path(folder).glob("*.json"))}


def values(case, engine, pick=lambda turn: turn["value"]):
    return [pick(turn) for turn in case["turns"] if turn["engine"] == engine]


def median(case, engine, pick=lambda turn: turn["value"]):
    return statistics.median(values(case, engine, pick))


def verdict(value, floor, goal, lower_is_better=False):
    sign = -1 if lower_is_better else 1
    if goal is not None and sign * value >= sign * goal:
        return "goal"
    return "floor" if sign * value >= sign * floor else "**below the floor**"


def row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def table(header, rows):
    return [row(*header), row(*["---"] * len(header)), *rows, ""]


def rate_rows(results):
    for name, (title, floor, goal) in RATIOS.items():
        if name not in results:
            continue
        case = results[name]
        ours, theirs = median(case, "muselet"), median(case, "llama.cpp")
        ratio = ours / theirs
        reached = verdict(ratio, floor, goal)
        goal_text = f"{goal:g} ×" if goal else "85 % of the read bound"
        if name == "decode_1":
            limits = results["run"]["limits"]
            share = ours * limits["weight_bytes"] / limits["read_bytes_per_s"]
            if share >= READ_BOUND_GOAL and ratio >= floor:
                reached = "goal"
            title += f"; {100 * share:.0f} % of the read bound"
        yield row(title, f"{ours:.1f} tok/s", f"{theirs:.1f} tok/s", f"{ratio:.2f} ×", f"{floor:g} ×", goal_text,
                  reached)


def ttft_row(results):
    if "server_32" not in results:
        return
    pick = lambda turn: turn["raw"]["ttft_ms"]["p50"]
    ours, theirs = (median(results["server_32"], engine, pick) for engine in ("muselet", "llama.cpp"))
    yield row("TTFT p50, 32 streams (llama-server)", f"{ours / 1e3:.2f} s", f"{theirs / 1e3:.2f} s",
              f"1/{theirs / ours:.1f}", "1/5", "1/10", verdict(ours / theirs, 1 / 5, 1 / 10, True))


def itl_rows(results):
    for streams in (1, 16):
        case = results.get(f"itl_{streams}")
        if not case:
            continue
        calm = median(case, "muselet", lambda turn: turn["raw"]["undisturbed"]["p99_ms"])
        during = median(case, "muselet", lambda turn: turn["raw"]["during_prompt"]["p99_ms"])
        ratio = median(case, "muselet")
        own = median(case, "muselet", lambda turn: turn["raw"]["ttft_ratio"])
        reached = verdict(ratio, 2.0, 1.3, True)
        if own > 2.0:
            reached = "**below the floor**"
        title = f"ITL p99 of {streams} running stream{'s' if streams > 1 else ''} while a 2,000-token prompt arrives"
        yield row(f"{title}; its TTFT {own:.2f} × its undisturbed one (at most 2 ×)", f"{during:.1f} ms",
                  f"undisturbed {calm:.1f} ms", f"{ratio:.2f} ×", "≤ 2 ×", "≤ 1.3 ×", reached)


def share_rows(results):
    if "outside_kernels_32" in results:
        share = median(results["outside_kernels_32"], "muselet")
        yield row("CPU time outside the kernels, 32 streams", f"{100 * share:.1f} %", "", "", "≤ 8 %", "≤ 4 %",
                  verdict(share, 0.08, 0.04, True))
    if "busy_neighbour" in results:
        case = results["busy_neighbour"]
        ours, theirs = median(case, "muselet"), median(case, "llama.cpp")
        yield row("decode beside one other busy process, share of undisturbed", f"{100 * ours:.0f} %",
                  f"{100 * theirs:.0f} %", f"{ours / theirs:.1f} ×", "≥ 40 %", "≥ 50 %", verdict(ours, 0.4, 0.5))
    if "idle" in results:
        share = median(results["idle"], "muselet")
        yield row("idle server, share of one core", f"{100 * share:.2f} %", "", "", "≤ 1 %", "≤ 0.2 %",
                  verdict(share, 0.01, 0.002, True))


def circumstances(run):
    limits = run["limits"]
    lines = [f"- {run['started']} to {run['finished']}, commit {run['commit'][:12]}"
             + (" with uncommitted changes" if run["uncommitted_sources"] else ""),
             f"- {run['cpu']['name']}, {run['cpu']['cpus']} CPUs, Linux {run['kernel']}; flags: {run['cpu']['flags']}",
             f"- measured limits: reads {limits['read_bytes_per_s'] / 1e9:.1f} GB/s, "
             f"{limits['f32_flops'] / 1e9:.0f} GFLOP/s in f32, {limits['int8_ops'] / 1e9:.0f} GOP/s in int8",
             f"- {run['model']} (sha256 {run['model_sha256'][:16]}…), "
             f"{limits['weight_bytes'] / 1e6:.1f} MB read a token; {limits['numerics_id']}, {limits['device']}",
             f"- peer: {run['peer']['name']}, {run['peer']['build']}",
             f"- load average {run['load_average'][0]} before and {run['load_average_after'][0]} after; "
             f"{run['busy_cpus_before']:.2f} CPUs were busy with other things at the start"]
    if run["quick"]:
        lines.insert(0, "- **A quick trial of the tool: these figures mean nothing.**")
    elif run["busy_cpus_before"] > 0.1:
        lines.insert(0, "- **The machine was not idle: the figures are too low, and the ratios are unsure.**")
    return lines + [""]


def turn_lines(results):
    for name, case in results.items():
        if name == "run":
            continue
        for engine in ("muselet", "llama.cpp"):
            turns = [turn for turn in case["turns"] if turn["engine"] == engine]
            if not turns:
                continue
            options = " ".join(turns[0].get("options", [])) or "default"
            yield row(name, engine, options, " ".join(f"{turn['value']:.4g}" for turn in turns), turns[0]["unit"],
                      " ".join(f"{turn['load_average'][0]:.1f}" for turn in turns))


def server_lines(results):
    for streams in (1, 8, 32):
        case = results.get(f"server_{streams}")
        for engine in ("muselet", "llama.cpp") if case else ():
            pick = lambda *path: median(case, engine, lambda turn: follow(turn["raw"], path))
            yield row(streams, engine, f"{pick('ttft_ms', 'p50'):.0f}", f"{pick('ttft_ms', 'p99'):.0f}",
                      f"{pick('itl_ms', 'p50'):.1f}", f"{pick('itl_ms', 'p99'):.1f}", f"{pick('ready_s'):.2f}",
                      f"{pick('resident_mb'):.0f}")


def follow(value, path):
    for key in path:
        value = value[key]
    return value


def profile_lines(results):
    if "outside_kernels_32" in results:
        raw = results["outside_kernels_32"]["turns"][0]["raw"]
        for name, share in raw["classes"].items():
            yield row(name, f"{100 * share:.2f} %")


def report(folder):
    results = load(folder)
    rows = [*rate_rows(results), *ttft_row(results), *itl_rows(results), *share_rows(results)]
    lines = ["# Results", "", *INTRODUCTION, "", *circumstances(results["run"]),
             *table(["case", "muselet", "llama.cpp", "ratio", "floor", "goal", "reached"], rows)]
    lines += ["## Servers", "", "Time to the first token and between tokens in ms; start to ready in s; resident MB.",
              "",
              *table(["streams", "server", "TTFT p50", "TTFT p99", "ITL p50", "ITL p99", "ready", "resident"],
                     server_lines(results))]
    lines += ["## Where the processor time goes at 32 streams", "", *PROFILE_METHOD, "",
              *table(["part", "share"], profile_lines(results))]
    lines += ["## Turns", "", "In the order taken; the last column is the load average at the start of each.", "",
              *table(["case", "engine", "options", "values", "unit", "load"], turn_lines(results))]
    return "\n".join(lines).rstrip("\n") + "\n"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    pathlib.Path(sys.argv[2]).write_text(report(sys.argv[1]))


if __name__ == "__main__":
    main()
