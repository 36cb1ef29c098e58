#!/usr/bin/env python3
"""Writes a DeepSeek-V3 checkpoint of about 1 GB with weights that mean nothing, to measure loading.

    bench/synthetic_checkpoint.py FOLDER [--layers 6] [--fp8]

BF16, or with --fp8 blocks of 128 x 128 with FP32 scales. Shards of about 256 MB with an index. Needs nothing but Python.
"""
import argparse
import json
import pathlib
import random
import struct

HIDDEN, HEADS, Q_LORA, KV_LORA, NOPE, ROPE, V = 2048, 16, 768, 512, 128, 64, 128
DENSE, EXPERT, EXPERTS, VOCAB = 5632, 704, 16, 32000
SHARD = 256 << 20


def config(layers, fp8):
    values = {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_act": "silu",
        "hidden_size": HIDDEN, "num_hidden_layers": layers, "first_k_dense_replace": 1, "num_attention_heads": HEADS,
        "q_lora_rank": Q_LORA, "kv_lora_rank": KV_LORA, "qk_nope_head_dim": NOPE, "qk_rope_head_dim": ROPE,
        "v_head_dim": V, "intermediate_size": DENSE, "moe_intermediate_size": EXPERT, "n_routed_experts": EXPERTS,
        "n_shared_experts": 1, "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2, "norm_topk_prob": True,
        "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "rms_norm_eps": 1e-6,
        "rope_theta": 10000, "max_position_embeddings": 4096, "tie_word_embeddings": False, "vocab_size": VOCAB,
        "bos_token_id": 0, "eos_token_id": 1,
    }
    if fp8:
        values["quantization_config"] = {
            "quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    return values


def tensors(layers):
    """(name, shape, may be quantised)"""
    yield "model.embed_tokens.weight", [VOCAB, HIDDEN], False
    for layer in range(layers):
        at = f"model.layers.{layer}."
        for name, shape in (
                ("q_a_proj", [Q_LORA, HIDDEN]), ("q_b_proj", [HEADS * (NOPE + ROPE), Q_LORA]),
                ("kv_a_proj_with_mqa", [KV_LORA + ROPE, HIDDEN]), ("kv_b_proj", [HEADS * (NOPE + V), KV_LORA]),
                ("o_proj", [HIDDEN, HEADS * V])):
            yield f"{at}self_attn.{name}.weight", shape, True
        yield at + "self_attn.q_a_layernorm.weight", [Q_LORA], False
        yield at + "self_attn.kv_a_layernorm.weight", [KV_LORA], False
        yield at + "input_layernorm.weight", [HIDDEN], False
        yield at + "post_attention_layernorm.weight", [HIDDEN], False
        mlps = {"mlp.": DENSE}
        if layer >= 1:
            yield at + "mlp.gate.weight", [EXPERTS, HIDDEN], False
            yield at + "mlp.gate.e_score_correction_bias", [EXPERTS], False
            mlps = {f"mlp.experts.{e}.": EXPERT for e in range(EXPERTS)} | {"mlp.shared_experts.": EXPERT}
        for name, width in mlps.items():
            for part, shape in (("gate", [width, HIDDEN]), ("up", [width, HIDDEN]), ("down", [HIDDEN, width])):
                yield f"{at}{name}{part}_proj.weight", shape, True
    yield "model.norm.weight", [HIDDEN], False
    yield "lm_head.weight", [VOCAB, HIDDEN], False


def repeated(block, size):
    return block * (size // len(block)) + block[: size % len(block)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--fp8", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    # BF16 between 0.0078 and 0.0156 with either sign; FP8 without its two values that are not numbers.
    rng = random.Random(1)
    bf16 = b"".join(struct.pack("<H", rng.getrandbits(7) | 0x3C00 | rng.getrandbits(1) << 15) for _ in range(1 << 16))
    fp8 = bytes(rng.randrange(127) | rng.getrandbits(1) << 7 for _ in range(1 << 16))
    scale = struct.pack("<f", 1e-4)

    shards, size = [{}], 0
    for name, shape, may in tensors(options.layers):
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        quantised = may and options.fp8
        shards[-1][name] = ("F8_E4M3", shape, count, fp8) if quantised else ("BF16", shape, 2 * count, bf16)
        if quantised:
            blocks = [-(-extent // 128) for extent in shape]
            shards[-1][name + "_scale_inv"] = ("F32", blocks, 4 * blocks[0] * blocks[1], scale)
        size += shards[-1][name][2]
        if size > SHARD:
            shards.append({})
            size = 0
    shards = [shard for shard in shards if shard]
    index = {}
    for number, shard in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        header, at = {}, 0
        for name, (dtype, shape, length, _) in shard.items():
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + length]}
            index[name] = file
            at += length
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(options.folder / file, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for _, _, length, block in shard.values():
                out.write(repeated(block, length))
    (options.folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (options.folder / "config.json").write_text(json.dumps(config(options.layers, options.fp8), indent=1))


if __name__ == "__main__":
    main()
