#!/usr/bin/env python3
"""Counts the instructions of the hot loops with callgrind and compares them with tests/bench/instructions.json.

Clock times on shared machines drift; the number of instructions of a fixed piece of work does not. A loop that takes
more than the tolerance over its stored count fails; one that takes less asks for --update, which writes the new
counts. Counts belong to one compiler: with another than the stored one only a change beyond
OTHER_COMPILER_TOLERANCE fails.

Usage: instructions.py [--update] [--program build/release/bin/hot_loops]
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build" / "release" / "bin" / "hot_loops"
STORED = ROOT / "tests" / "bench" / "instructions.json"
TOLERANCE = 0.03
OTHER_COMPILER_TOLERANCE = 0.5


def has_avx2():
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    return {"avx2", "fma", "f16c"} <= set(flags)


def levels():
    """The forced instruction set levels that valgrind can run here; it knows none beyond AVX2."""
    return ["scalar", "avx2"] if has_avx2() else ["scalar"]


def profiles(folder):
    """{loop: instructions} of the profiles that one run left."""
    counts = {}
    for profile in pathlib.Path(folder).glob("callgrind.out*"):
        text = profile.read_text(errors="replace")
        name = re.search(r"^desc: Trigger: Client Request: (\S+)$", text, re.MULTILINE)
        totals = re.search(r"^(?:summary|totals): (\d+)", text, re.MULTILINE)
        if name and totals:
            counts[name.group(1)] = int(totals.group(1))
    return counts


def count(program=PROGRAM):
    """(version of the compiler that built `program`, {loop: instructions})."""
    version = subprocess.run([program, "--compiler"], check=True, capture_output=True, text=True).stdout.strip()
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for level in levels():
            out = pathlib.Path(folder) / level
            out.mkdir()
            command = ["valgrind", "--tool=callgrind", "--instr-atstart=no",
                       f"--callgrind-out-file={out}/callgrind.out", program, level]
            runs.append((out, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)))
        for out, run in runs:
            _, errors = run.communicate()
            if run.returncode != 0:
                raise RuntimeError(f"hot_loops {out.name} under callgrind: exit {run.returncode}\n{errors[-2000:]}")
            counts.update(profiles(out))
    return version, dict(sorted(counts.items()))


def differences(stored, compiler, counts):
    """(regressions, improvements), each a list of sentences. A loop that is missing on one side is a regression."""
    same_compiler = stored["compiler"] == compiler
    tolerance = TOLERANCE if same_compiler else OTHER_COMPILER_TOLERANCE
    regressions, improvements = [], []
    measured_levels = {name.split("/")[0] for name in counts}
    for name in sorted(set(stored["counts"]) | set(counts)):
        before, now = stored["counts"].get(name), counts.get(name)
        if before is None:
            regressions.append(f"{name}: has no stored count (instructions.py --update stores it)")
        elif now is None:
            # A machine without AVX2 cannot run those loops; every other one must be there.
            if name.split("/")[0] in measured_levels or name.split("/")[0] in levels():
                regressions.append(f"{name}: was not measured")
        elif now > before * (1 + tolerance):
            regressions.append(f"{name}: {now} instructions, {100 * (now / before - 1):.1f} % more than {before}")
        elif now < before * (1 - tolerance) and same_compiler:
            improvements.append(f"{name}: {now} instructions, {100 * (1 - now / before):.1f} % fewer than {before}; "
                                "keep it with instructions.py --update")
    return regressions, improvements


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="store the counts instead of comparing")
    parser.add_argument("--program", type=pathlib.Path, default=PROGRAM)
    options = parser.parse_args()
    compiler, counts = count(options.program)
    if options.update:
        STORED.write_text(json.dumps({"compiler": compiler, "counts": counts}, indent=1) + "\n")
        print(f"stored {len(counts)} counts")
        return 0
    stored = json.loads(STORED.read_text())
    regressions, improvements = differences(stored, compiler, counts)
    if stored["compiler"] != compiler:
        print(f"built by g++ {compiler}, the stored counts are of g++ {stored['compiler']}")
    print("\n".join(regressions + improvements) or f"{len(counts)} counts as stored")
    return 1 if regressions else 0


if __name__ == "__main__":
    sys.exit(main())
