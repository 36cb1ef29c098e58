#!/usr/bin/env python3
"""Makes the FP8 checkpoint, and its reference logits, that tests/model/fp8_test.cc reads.

    python3 -m venv venv && venv/bin/pip install numpy==2.4.6 torch==2.13.0 transformers==5.23.0
    venv/bin/python tests/goldens/make_fp8_goldens.py

Writes beside this file:
  fp8-tiny/       a DeepSeek-V3 graph with random weights, in FP8 blocks of 128 x 128 as DeepSeek publishes them: two
                  shards with an index. No extent is a multiple of 128, so that blocks are cut short everywhere, and
                  every cut between ranks falls inside of a block.
  fp8-tiny.json   a prompt, the positions whose logits are kept, and the logits of transformers in FP32 on the
                  checkpoint dequantised: a weight is its FP8 value times its block's scale, in FP32.
"""
import json
import pathlib
import sys
import tempfile

import numpy as np

from deepseek_v3_reference import BLOCK, from_e4m3, spread, to_e4m3

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "fp8-tiny"
CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 144,
    "intermediate_size": 272,
    "kv_lora_rank": 144,
    "max_position_embeddings": 512,
    "moe_intermediate_size": 136,
    "moe_layer_freq": 1,
    "n_group": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 8,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 8,
    "num_nextn_predict_layers": 0,
    "q_lora_rank": 160,
    "qk_nope_head_dim": 20,
    "qk_rope_head_dim": 16,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [BLOCK, BLOCK],
    },
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "v_head_dim": 24,
    "vocab_size": 128,
}
TOKENS = 150
KEPT = [0, 1, 63, 64, 100, 149]


def quantise(weight):
    """FP8 bits and FP32 scales, one for each block."""
    rows, columns = (-(-extent // BLOCK) for extent in weight.shape)
    scales = np.empty((rows, columns), np.float32)
    for r in range(rows):
        for c in range(columns):
            block = weight[r * BLOCK : (r + 1) * BLOCK, c * BLOCK : (c + 1) * BLOCK]
            scales[r, c] = np.abs(block).max() / 448
    return to_e4m3(weight / spread(scales, weight.shape)), scales


def dequantise(bits, scales):
    return from_e4m3(bits).astype(np.float32) * spread(scales, bits.shape)


def to_bf16(x):
    """Bits, cut off: what a test needs is that the values are BF16."""
    return (np.asarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def weights(random):
    """name -> (kind, FP64 values); kind says how it is stored."""
    c = CONFIG
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    q_head = c["qk_nope_head_dim"] + c["qk_rope_head_dim"]

    def matrix(rows, columns, kind="fp8"):
        values = random.standard_normal((rows, columns)) / np.sqrt(columns)
        # Blocks differ in size, so that a block with its neighbour's scale is seen.
        blocks = 2.0 ** random.uniform(-1.5, 1.5, (-(-rows // BLOCK), -(-columns // BLOCK)))
        return kind, values * spread(blocks, (rows, columns))

    def norm(width):
        return "bf16", 1 + 0.2 * random.standard_normal(width)

    yield "model.embed_tokens.weight", ("bf16", random.standard_normal((c["vocab_size"], hidden)))
    for layer in range(c["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        yield at + "input_layernorm.weight", norm(hidden)
        yield at + "self_attn.q_a_proj.weight", matrix(c["q_lora_rank"], hidden)
        yield at + "self_attn.q_a_layernorm.weight", norm(c["q_lora_rank"])
        yield at + "self_attn.q_b_proj.weight", matrix(heads * q_head, c["q_lora_rank"])
        yield at + "self_attn.kv_a_proj_with_mqa.weight", matrix(c["kv_lora_rank"] + c["qk_rope_head_dim"], hidden)
        yield at + "self_attn.kv_a_layernorm.weight", norm(c["kv_lora_rank"])
        yield at + "self_attn.kv_b_proj.weight", matrix(
            heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), c["kv_lora_rank"])
        yield at + "self_attn.o_proj.weight", matrix(hidden, heads * c["v_head_dim"])
        yield at + "post_attention_layernorm.weight", norm(hidden)
        mlps = {"mlp.": c["intermediate_size"]}
        if layer >= c["first_k_dense_replace"]:
            yield at + "mlp.gate.weight", matrix(c["n_routed_experts"], hidden, "bf16")
            yield at + "mlp.gate.e_score_correction_bias", ("f32", 0.1 * random.standard_normal(c["n_routed_experts"]))
            mlps = {"mlp.shared_experts.": c["n_shared_experts"] * c["moe_intermediate_size"]}
            mlps |= {f"mlp.experts.{e}.": c["moe_intermediate_size"] for e in range(c["n_routed_experts"])}
        for name, width in mlps.items():
            yield at + name + "gate_proj.weight", matrix(width, hidden)
            yield at + name + "up_proj.weight", matrix(width, hidden)
            yield at + name + "down_proj.weight", matrix(hidden, width)
    yield "model.norm.weight", norm(hidden)
    yield "lm_head.weight", matrix(c["vocab_size"], hidden, "bf16")


def write_safetensors(path, tensors):
    """tensors: name -> (dtype's name, array)."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for _, values in tensors.values():
            out.write(np.ascontiguousarray(values).tobytes())


def main():
    random = np.random.default_rng(8)
    stored, plain = {}, {}
    for name, (kind, values) in weights(random):
        if kind == "fp8":
            bits, scales = quantise(values)
            stored[name] = ("F8_E4M3", bits)
            stored[name + "_scale_inv"] = ("F32", scales)
            plain[name] = ("F32", dequantise(bits, scales))
        elif kind == "bf16":
            bits = to_bf16(values)
            stored[name] = ("BF16", bits)
            plain[name] = ("F32", from_bf16(bits))
        else:
            stored[name] = plain[name] = ("F32", values.astype(np.float32))

    OUT.mkdir(exist_ok=True)
    shards = [{}, {}]
    for name, tensor in stored.items():
        shards[name.startswith(("model.layers.1.", "model.norm", "lm_head"))][name] = tensor
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards):
        write_safetensors(OUT / name, shard)
    index = {
        "metadata": {"total_size": sum(values.nbytes for _, values in stored.values())},
        "weight_map": {tensor: name for name, shard in zip(names, shards) for tensor in shard},
    }
    (OUT / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    (OUT / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")

    import torch
    import transformers

    tokens = random.integers(0, CONFIG["vocab_size"], TOKENS).tolist()
    with tempfile.TemporaryDirectory() as folder:
        write_safetensors(pathlib.Path(folder) / "model.safetensors", plain)
        config = {key: value for key, value in CONFIG.items() if key != "quantization_config"}
        (pathlib.Path(folder) / "config.json").write_text(json.dumps(config))
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager").eval()
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].numpy()
    golden = {"tokens": tokens, "positions": KEPT, "logits": [[float(f"{v:.8g}") for v in logits[p]] for p in KEPT]}
    (HERE / "fp8-tiny.json").write_text(json.dumps(golden) + "\n")
    print("largest logit", np.abs(logits).max(), file=sys.stderr)


if __name__ == "__main__":
    main()
