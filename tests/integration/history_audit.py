#!/usr/bin/env python3
"""Compares what clients received with what they would have received undisturbed.

A history is a list of records {"request": NAME, "index": N, "token": ID}, one for each token in the order of arrival,
and {"request": NAME, "finish": REASON} at the end of each stream; in a file one record a line, as JSON.

Usage: history_audit.py UNDISTURBED.jsonl OBSERVED.jsonl   prints a line for each fault, and exits 1 if there is one.
"""
import json
import pathlib
import sys
from collections import defaultdict


class _Stream:
    def __init__(self):
        self.tokens = []
        self.finish = None


def _streams(history):
    """(streams by request, faults of form): a stream's indices count up from 0 and nothing follows its end."""
    streams, faults = defaultdict(_Stream), []
    for record in history:
        stream, name = streams[record["request"]], record["request"]
        if stream.finish is not None:
            faults.append(f"{name}: something follows its end")
        elif "finish" in record:
            stream.finish = record["finish"]
        elif record["index"] < len(stream.tokens):
            faults.append(f"{name}: token {record['index']} came twice")
        elif record["index"] > len(stream.tokens):
            faults.append(f"{name}: token {len(stream.tokens)} is missing, {record['index']} came")
            stream.tokens += [None] * (record["index"] - len(stream.tokens)) + [record["token"]]
        else:
            stream.tokens.append(record["token"])
    return streams, faults


def audit(undisturbed, observed):
    """The faults of `observed`, as lines for people; none if every stream is complete and has the same tokens."""
    expected, form_faults = _streams(undisturbed)
    assert not form_faults, f"the undisturbed history is no yardstick: {form_faults}"
    found, faults = _streams(observed)
    for name in sorted(found.keys() - expected.keys()):
        faults.append(f"{name}: not among the undisturbed requests")
    for name, wanted in expected.items():
        if name not in found:
            faults.append(f"{name}: gave nothing")
            continue
        got = found[name]
        for index, (token, other) in enumerate(zip(wanted.tokens, got.tokens)):
            if token != other and other is not None:
                faults.append(f"{name}: token {index} is {other} instead of {token}")
                break
        if len(got.tokens) != len(wanted.tokens):
            faults.append(f"{name}: has {len(got.tokens)} tokens instead of {len(wanted.tokens)}")
        if got.finish != wanted.finish:
            faults.append(f"{name}: ended with {got.finish} instead of {wanted.finish}")
    return faults


def main():
    histories = [[json.loads(line) for line in pathlib.Path(path).read_text().splitlines() if line]
                 for path in sys.argv[1:3]]
    faults = audit(*histories)
    print("\n".join(faults) or "equal")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
