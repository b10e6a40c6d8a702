"""The audit of histories finds what is planted."""
import json
import pathlib
import random
import subprocess
import sys

import pytest

from history_audit import audit

STREAMS, TOKENS = 4, 20


def undisturbed():
    draw = random.Random(5)
    records = [{"request": f"r{stream}", "index": index, "token": draw.randrange(1000)}
               for index in range(TOKENS) for stream in range(STREAMS)]
    return records + [{"request": f"r{stream}", "finish": "length"} for stream in range(STREAMS)]


def interleaved_otherwise(records):
    return sorted(records, key=lambda record: (record["request"], record.get("index", TOKENS)))


def test_an_equal_history_in_another_interleaving_has_no_fault():
    assert audit(undisturbed(), interleaved_otherwise(undisturbed())) == []


def dropped(records):
    del records[17]


def dropped_at_the_end(records):
    del records[STREAMS * TOKENS - 1]


def doubled(records):
    records.insert(30, dict(records[30]))


def swapped(records):
    records[8], records[8 + STREAMS] = records[8 + STREAMS], records[8]


def tokens_swapped(records):
    records[8]["token"], records[8 + STREAMS]["token"] = records[8 + STREAMS]["token"], records[8]["token"]


def changed(records):
    records[40]["token"] += 1


def cut_off(records):
    del records[-1]


def ended_otherwise(records):
    records[-1]["finish"] = "error"


def never_begun(records):
    records[:] = [record for record in records if record["request"] != "r2"]


def token_after_the_end(records):
    records.append({"request": "r1", "index": TOKENS, "token": 1})


def stranger(records):
    records.append({"request": "r9", "finish": "length"})


@pytest.mark.parametrize("plant", [dropped, dropped_at_the_end, doubled, swapped, tokens_swapped, changed, cut_off,
                                   ended_otherwise, never_begun, token_after_the_end, stranger])
def test_a_planted_fault_is_found(plant, tmp_path):
    records = undisturbed()
    plant(records)
    assert audit(undisturbed(), records) != []
    for name, history in (("a", undisturbed()), ("b", records)):
        (tmp_path / name).write_text("\n".join(map(json.dumps, history)))
    program = pathlib.Path(__file__).with_name("history_audit.py")
    assert subprocess.run([sys.executable, program, tmp_path / "a", tmp_path / "b"],
                          capture_output=True, check=False).returncode == 1
