#!/usr/bin/env python3
"""Writes tests/golden/gguf/dequantised.json: of every tensor of the GGUF files, the CRC-32 of its values as the `gguf`
package dequantises them (float32, little-endian), so that all of them can be compared bit for bit.

Usage: make_dequantised_sums.py [../shared/data/gguf]     needs: gguf==0.19.0 numpy==2.4.6
"""
import json
import pathlib
import sys
import zlib

import gguf
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent


def sums(path):
    reader = gguf.GGUFReader(path)
    values = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    return {name: zlib.crc32(np.ascontiguousarray(v, dtype="<f4").tobytes()) for name, v in sorted(values.items())}


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parents[2] / "shared" / "data" / "gguf")
    files = {path.name: sums(path) for path in sorted(folder.glob("*.gguf"))}
    out = {"made_with": {"gguf": "0.19.0"}, "crc32": files}
    (HERE / "gguf" / "dequantised.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
