"""RESULTS.md says what the raw results say, and the verdicts are drawn as the report claims."""
import json
import pathlib

import pytest

import compare_engines
import compare_report
import compare_streams

BENCH = pathlib.Path(__file__).resolve().parent
RESULTS = BENCH / "results"


def turn(engine, value, raw=None):
    return {"engine": engine, "value": value, "unit": "tok/s", "load_average": [0.1, 0.1, 0.1], "raw": raw or {}}


@pytest.fixture
def results(tmp_path):
    """A folder of raw results of the shape that compare.py writes, with every case."""
    served = {"ttft_ms": {"p50": 500.0, "p99": 900.0}, "itl_ms": {"p50": 20.0, "p99": 40.0}, "ready_s": 0.3,
              "resident_mb": 200.0}
    slow = {**served, "ttft_ms": {"p50": 6000.0, "p99": 9000.0}}
    disturbed = {"undisturbed": {"p99_ms": 30.0}, "during_prompt": {"p99_ms": 45.0}, "ttft_ratio": 1.5}
    content = {name: [turn("muselet", 400.0, served), turn("llama.cpp", 100.0, slow)] for name in compare_report.RATIOS}
    content |= {name: [turn("muselet", 1.5, disturbed)] for name in ("itl_1", "itl_16")}
    content["outside_kernels_32"] = [turn("muselet", 0.05, {"classes": {"kernels": 0.95, "sampler": 0.05}})]
    content["busy_neighbour"] = [turn("muselet", 0.55), turn("llama.cpp", 0.02)]
    content["idle"] = [turn("muselet", 0.001)]
    for name, turns in content.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"case": name, "tuning": [], "turns": turns}))
    run = {"started": "a", "finished": "b", "commit": "0" * 40, "uncommitted_sources": False, "quick": False,
           "cpu": {"name": "c", "cpus": 2, "flags": "avx2"}, "kernel": "6", "model": "m", "model_sha256": "0" * 64,
           "peer": {"name": "p", "build": "-O3"}, "load_average": [0, 0, 0], "load_average_after": [0, 0, 0],
           "busy_cpus_before": 0.0,
           "limits": {"weight_bytes": 100e6, "read_bytes_per_s": 40e9, "f32_flops": 1e11, "int8_ops": 2e11,
                      "numerics_id": "n", "device": "d"}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    return tmp_path


def test_results_md_is_made_of_the_raw_results():
    if not (RESULTS / "run.json").exists():  # nothing measured: then nothing may be claimed
        assert not (BENCH / "RESULTS.md").exists()
        return
    assert (BENCH / "RESULTS.md").read_text() == compare_report.report(RESULTS), \
        "run tests/bench/compare_report.py tests/bench/results tests/bench/RESULTS.md"
    wanted = {*compare_report.RATIOS, "itl_1", "itl_16", "outside_kernels_32", "busy_neighbour", "idle", "run"}
    assert wanted == set(compare_report.load(RESULTS))


def test_raw_results_are_small_and_name_no_folder():
    files = list(RESULTS.glob("*.json"))
    assert sum(path.stat().st_size for path in files) < 500_000
    for path in files:
        assert not any(folder in path.read_text() for folder in ("/work/", "/home/", "/tmp/", "/root/")), path


@pytest.mark.parametrize("case", [*compare_report.RATIOS, "itl_1", "itl_16", "outside_kernels_32", "busy_neighbour",
                                  "idle"])
def test_a_changed_raw_value_changes_the_report(results, case):
    before = compare_report.report(results)
    content = json.loads((results / f"{case}.json").read_text())
    content["turns"][0]["value"] *= 1.5
    (results / f"{case}.json").write_text(json.dumps(content))
    assert compare_report.report(results) != before


def test_the_table_has_ratios_and_verdicts(results):
    rows = {line.split(" | ")[0].lstrip("| "): line for line in compare_report.report(results).splitlines()
            if line.count(" | ") == 6}
    assert "400.0 tok/s | 100.0 tok/s | 4.00 × | 3.5 × | 5 × | floor" in \
        rows["decode, 32 streams (llama-batched-bench)"]
    assert rows["TTFT p50, 32 streams (llama-server)"].endswith("0.50 s | 6.00 s | 1/12.0 | 1/5 | 1/10 | goal |")
    # 400 tok/s of 100 MB are all that 40 GB/s allow.
    assert "100 % of the read bound" in "".join(rows)
    assert rows["idle server, share of one core"].endswith("goal |")


def test_a_long_prompt_that_waits_too_long_misses_the_floor(results):
    content = json.loads((results / "itl_16.json").read_text())
    content["turns"][0]["raw"]["ttft_ratio"] = 2.1
    (results / "itl_16.json").write_text(json.dumps(content))
    line = next(line for line in compare_report.report(results).splitlines() if line.startswith("| ITL p99 of 16"))
    assert "below the floor" in line


@pytest.mark.parametrize("value, floor, goal, lower, expected", [
    (5.0, 3.5, 5.0, False, "goal"), (3.6, 3.5, 5.0, False, "floor"), (3.4, 3.5, 5.0, False, "**below the floor**"),
    (0.03, 0.08, 0.04, True, "goal"), (0.05, 0.08, 0.04, True, "floor"),
    (0.09, 0.08, 0.04, True, "**below the floor**"),
    (9.0, 2.0, None, False, "floor")])
def test_verdicts(value, floor, goal, lower, expected):
    assert compare_report.verdict(value, floor, goal, lower) == expected


def test_medians_are_taken_by_engine():
    case = {"turns": [{"engine": engine, "value": value} for engine, value in
                      [("muselet", 3), ("llama.cpp", 9), ("muselet", 1), ("llama.cpp", 7), ("muselet", 50)]]}
    assert compare_report.median(case, "muselet") == 3
    assert compare_report.median(case, "llama.cpp") == 8


def test_samples_are_sorted_into_kernels_and_the_rest():
    script = """
    55d0 muselet::cpu::avx2::MatMulInt8(muselet::cpu::MatMulTile const&) (/x/muselet)
    55d1 muselet::cpu::ThreadPool::AwaitJob() (/x/muselet)
    55d2 muselet::Sampler::Draw(std::span<float const>) (/x/muselet)
    55d3 __memcpy_avx_unaligned (/usr/lib/libc.so.6)
    ffff do_syscall_64 ([kernel.kallsyms])
"""
    classes, symbols, samples = compare_engines.shares(script)
    assert samples == 5
    assert classes == dict.fromkeys(["kernels", "thread pool", "sampler", "libraries", "operating system"], 0.2)
    assert "__memcpy_avx_unaligned" in symbols


def test_gaps_of_a_stream_are_those_that_end_in_the_window():
    stream = compare_streams.Stream("http://127.0.0.1:1", [1], 4)
    stream.times = [1.0, 1.1, 1.3, 1.6]
    stream.ended = True
    assert stream.gaps(1.05, 1.3) == pytest.approx([0.1, 0.2])
    stream.ended = False  # nothing for a whole second: the wait so far counts
    assert stream.gaps(1.5, 2.6) == pytest.approx([0.3, 1.0])
