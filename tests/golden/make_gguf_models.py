#!/usr/bin/env python3
"""Writes tests/golden/gguf/<model>.gguf from the tiny checkpoints of ../shared/data/models, as llama.cpp's converter
lays each architecture out (names, permuted rows, stacked experts, norms with their 1), through the `gguf` package;
and answers.json, what transformers answers from the same weights.

GGUF has no word for Gemma 3's query_pre_attn_scalar: it goes into the norm of the queries, which changes no answer.

Usage: make_gguf_models.py [../shared/data/models]     needs: gguf==0.19.0 numpy==2.4.6
"""
import json
import pathlib
import sys

import gguf
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "gguf"
MODELS = {"mistral-swa": "llama", "mixtral-moe": "llama", "qwen2-bias": "qwen2", "qwen3-qknorm": "qwen3",
          "qwen3-moe": "qwen3moe", "phi3-fused": "phi3", "gemma3-text": "gemma3"}
LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight", "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.qkv_proj.weight": "attn_qkv.weight", "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight", "mlp.gate_up_proj.weight": "ffn_up.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight", "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight", "mlp.gate.weight": "ffn_gate_inp.weight",
    "block_sparse_moe.gate.weight": "ffn_gate_inp.weight"}
EXPERT_NAMES = {"w1": "gate", "w3": "up", "w2": "down", "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}


def read(path):
    """{name: float32 array} and whether the file is bfloat16."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + length])
    data = raw[8 + length:]
    tensors, bfloat16 = {}, False
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        if info["dtype"] == "BF16":
            bfloat16 = True
            bits = np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16
            values = bits.view(np.float32)
        else:
            values = np.frombuffer(data[begin:end], np.float32)
        tensors[name] = values.reshape(info["shape"])
    return tensors, bfloat16


def permuted(rows, heads):
    """Halves of each head become neighbours, as llama.cpp rotates Llama."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write_fields(writer, config, model):
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    head_dim = config.get("head_dim") or hidden // heads
    rope = config.get("rope_parameters") or {}
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head_dim)
    theta = config.get("rope_theta") or rope.get("rope_theta") or rope["full_attention"]["rope_theta"]
    writer.add_rope_freq_base(theta)
    writer.add_vocab_size(config["vocab_size"])
    if config.get("sliding_window"):
        writer.add_sliding_window(config["sliding_window"])
    if model == "gemma3-text":
        pattern = config["layer_types"].index("full_attention") + 1
        writer.add_uint32("gemma3.attention.sliding_window_pattern", pattern)
    experts = config.get("num_local_experts") or config.get("num_experts")
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
    if "moe_intermediate_size" in config:
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])


def converted(tensors, config, model):
    """Yields (GGUF name, float32 array)."""
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    stacks = {}
    for name, values in tensors.items():
        if model == "gemma3-text" and name.endswith("norm.weight"):
            values = values + np.float32(1)
        if name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
            yield {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
                   "lm_head.weight": "output.weight"}[name], values
            continue
        _, _, layer, rest = name.split(".", 3)
        block = f"blk.{layer}."
        if ".experts." in rest:
            number, part, _ = rest.split(".experts.")[1].split(".")
            stacks.setdefault(block + f"ffn_{EXPERT_NAMES[part]}_exps.weight", {})[int(number)] = values
            continue
        if model == "gemma3-text":
            if rest == "self_attn.q_norm.weight":
                values = values * np.float32(np.sqrt(config["head_dim"] / config["query_pre_attn_scalar"]))
            other = {"post_attention_layernorm.weight": "post_attention_norm.weight",
                     "pre_feedforward_layernorm.weight": "ffn_norm.weight",
                     "post_feedforward_layernorm.weight": "post_ffw_norm.weight"}
        else:
            other = {"post_attention_layernorm.weight": "ffn_norm.weight"}
        if rest.split(".")[1] in ("q_proj", "k_proj", "v_proj"):
            letter, kind = rest.split(".")[1][0], rest.split(".")[2]
            if MODELS[model] == "llama" and letter != "v":
                values = permuted(values, heads if letter == "q" else kv_heads)
            yield block + f"attn_{letter}.{kind}", values
            continue
        yield block + {**LAYER_NAMES, **other}[rest], values
    for name, parts in stacks.items():
        yield name, np.stack([parts[i] for i in range(len(parts))])


def write_model(folder, model):
    config = json.loads((folder / "config.json").read_text())
    tensors, bfloat16 = read(folder / "model.safetensors")
    out = OUT / f"{model}.{'BF16' if bfloat16 else 'F32'}.gguf"
    writer = gguf.GGUFWriter(out, MODELS[model])
    writer.add_name(model)
    write_fields(writer, config, model)
    for name, values in sorted(converted(tensors, config, model)):
        plain = not bfloat16 or values.ndim == 1 or "gate_inp" in name
        if plain:
            writer.add_tensor(name, np.ascontiguousarray(values))
        else:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out.name


def answers(folder):
    """The logits of the last position and the greedy ids of every prompt."""
    expected = json.loads((folder / "expected.json").read_text())
    prompts = [{"ids": p["ids"], "logits": p["logits"][-1:], "greedy": {"ids": p["greedy"]["ids"]}}
               for p in expected["prompts"]]
    return {"logit_std": expected["logit_std"], "prompts": prompts}


def main():
    models = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parents[2] / "shared" / "data" / "models")
    files = {write_model(models / model, model): answers(models / model) for model in MODELS}
    text = json.dumps({"made_with": {"gguf": "0.19.0", "answers": "transformers 5.19"}, "files": files})
    (OUT / "answers.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
