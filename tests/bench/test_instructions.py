"""The hot loops take as many instructions as tests/bench/instructions.json says."""
import json
import warnings

import pytest

import instructions


@pytest.fixture(scope="module")
def measured():
    return instructions.count()


@pytest.fixture
def stored():
    return json.loads(instructions.STORED.read_text())


def test_hot_loops_take_no_more_instructions_than_stored(measured, stored):
    regressions, improvements = instructions.differences(stored, *measured)
    for improvement in improvements:
        warnings.warn(improvement)
    assert not regressions, "\n".join(regressions)


@pytest.mark.parametrize("part", ["matmul_q4_1_int8", "matmul_q6_k_int8", "matmul_f16", "attention", "norm"])
def test_a_loop_that_grows_by_a_tenth_is_noticed(measured, stored, part):
    compiler, counts = measured
    # As if the code had been better when the counts were stored.
    planted = {name: int(now / 1.1) if part in name else now for name, now in counts.items()}
    regressions, _ = instructions.differences({"compiler": compiler, "counts": planted}, compiler, counts)
    assert regressions and all(part in regression for regression in regressions)


def test_a_loop_that_disappears_is_noticed(measured):
    compiler, counts = measured
    fewer = {name: now for name, now in counts.items() if name != "any/sampler_greedy"}
    regressions, _ = instructions.differences({"compiler": compiler, "counts": counts}, compiler, fewer)
    assert regressions == ["any/sampler_greedy: was not measured"]


def test_a_gain_asks_for_an_update(measured):
    compiler, counts = measured
    worse = {name: int(now * 1.2) for name, now in counts.items()}
    regressions, improvements = instructions.differences({"compiler": compiler, "counts": worse}, compiler, counts)
    assert not regressions and len(improvements) == len(counts)


def test_counts_of_another_compiler_are_compared_loosely(measured):
    _, counts = measured
    close = {name: int(now / 1.2) for name, now in counts.items()}
    far = {name: int(now / 2) for name, now in counts.items()}
    assert instructions.differences({"compiler": "1.0", "counts": close}, "2.0", counts) == ([], [])
    assert instructions.differences({"compiler": "1.0", "counts": far}, "2.0", counts)[0]
