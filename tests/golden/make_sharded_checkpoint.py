#!/usr/bin/env python3
"""Writes tests/golden/sharded/qwen2-bias: the tiny checkpoint of ../shared/data/models in several files and the index
that names them, as transformers saves large models; through the `safetensors` package.

Usage: make_sharded_checkpoint.py [../shared/data/models]     needs: safetensors==0.8.0 numpy==2.4.6
"""
import json
import pathlib
import shutil
import sys

import numpy as np
import safetensors

HERE = pathlib.Path(__file__).resolve().parent
MODEL = "qwen2-bias"
SHARD_BYTES = 300_000


def read(path):
    """[(name, dtype, shape, bytes)] in the file's order."""
    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    return [(name, names[info["dtype"]], info["shape"], np.frombuffer(bytes(info["data"]), np.uint8))
            for name, info in safetensors.deserialize(path.read_bytes())]


def shards(tensors):
    """Consecutive tensors, at most SHARD_BYTES a shard."""
    current, size = [], 0
    for tensor in tensors:
        if current and size + tensor[3].size > SHARD_BYTES:
            yield current
            current, size = [], 0
        current.append(tensor)
        size += tensor[3].size
    yield current


def serialized(part):
    specs = {name: safetensors.TensorSpec(dtype=dtype, shape=shape, data_ptr=data.ctypes.data, data_len=data.size)
             for name, dtype, shape, data in part}
    return safetensors.serialize(specs, {"format": "pt"})


def main():
    models = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parents[2] / "shared" / "data" / "models")
    out = HERE / "sharded" / MODEL
    out.mkdir(parents=True, exist_ok=True)
    tensors = read(models / MODEL / "model.safetensors")
    parts = list(shards(tensors))
    weight_map = {}
    for i, part in enumerate(parts, 1):
        name = f"model-{i:05d}-of-{len(parts):05d}.safetensors"
        (out / name).write_bytes(serialized(part))
        weight_map.update({tensor[0]: name for tensor in part})
    total = sum(tensor[3].size for tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    shutil.copyfile(models / MODEL / "config.json", out / "config.json")


if __name__ == "__main__":
    main()
