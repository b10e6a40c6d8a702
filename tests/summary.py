#!/usr/bin/env python3
"""Adds up the test reports of one run and prints "N passed, N failed, N skipped".

Usage: summary.py RESULTS_DIR SKIPS_FILE REPORT... Exits 1 if a test failed, a test program or a whole part (REPORT, a
file in RESULTS_DIR) left no report, nothing ran, or a test was skipped for a reason that SKIPS_FILE does not allow.
"""
import pathlib
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter


def cases(path):
    """(name, state, text) of each test case of one JUnit-like report; state is passed, failed or skipped."""
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.get("status") == "notrun":  # filtered out or disabled
            continue
        name = f"{case.get('classname', '')}.{case.get('name', '')}"
        failures = case.findall("failure") + case.findall("error")
        skip = case.find("skipped")
        if failures:
            yield name, "failed", failures[0].get("message") or failures[0].text or ""
        elif skip is not None:
            yield name, "skipped", skip.get("message") or skip.text or "no reason given"
        else:
            yield name, "passed", ""


def reason(text):
    """The words after the place that GoogleTest and pytest put before them."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("/") and line != "Skipped"] or lines
    return lines[-1] if lines else text


def collect(results):
    """All cases of a results folder, with one failed case more for each program that died."""
    found = []
    for report in sorted(results.glob("*/*.xml")) + sorted(results.glob("pytest.xml")):
        found += list(cases(report))
    for ctest in sorted(results.glob("*.ctest.xml")):
        folder = results / ctest.name.removesuffix(".ctest.xml")
        for name, state, text in cases(ctest):
            program = name.split(".")[-1]
            report = folder / f"{program}.xml"
            told = report.exists() and any(s == "failed" for _, s, _ in cases(report))
            if state == "failed" and not told:
                found.append((program, "failed", f"the program ended abnormally: {text}"))
    return found


def main():
    results, skips = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    allowed = [line for line in skips.read_text().splitlines() if line and not line.startswith("#")]
    found = collect(results)
    for report in sys.argv[3:]:
        if not (results / report).exists():
            found.append((report, "failed", "this part of the tests did not run to its end"))
    bad_skips = 0
    skipped = Counter()
    for name, state, text in found:
        if state == "failed":
            print(f"FAILED  {name}\n        {text.strip()[:2000]}")
        elif state == "skipped":
            why = reason(text)
            skipped[why] += 1
            if not any(why.startswith(prefix) for prefix in allowed):
                bad_skips += 1
                print(f"FAILED  {name}: skipped for a reason that is not allowed: {why}")
    for why, count in sorted(skipped.items()):
        print(f"skipped {count} x {why}")
    states = Counter(state for _, state, _ in found)
    failed = states["failed"] + bad_skips
    print(f"{states['passed']} passed, {failed} failed, {states['skipped'] - bad_skips} skipped")
    return 1 if failed or not states["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
