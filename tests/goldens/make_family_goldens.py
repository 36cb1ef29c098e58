#!/usr/bin/env python3
"""Makes a tiny random checkpoint of every model family and its reference logits, for
tests/model/families_test.cc.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 transformers==5.23.0
    venv/bin/python tests/goldens/make_family_goldens.py [family...]

Writes families/NAME/: config.json, model.safetensors (BF16, a function of tensor names alone) and what transformers
computes from them in FP32 with eager attention: golden.json (prompts, kept positions, greedy continuations) and
golden.f32 (logits: little-endian float32 [kept positions of all prompts in order, vocab]).

The releases matter: 5.23 has DeepSeek-V2's YaRN scale (huggingface/transformers#47435) and masks groups of V3's
router with -inf as DeepSeek's own code does.
"""
import json
import math
import pathlib
import sys
import zlib

import numpy
import torch
import transformers
from safetensors.torch import save_file

TRANSFORMERS = "5.23.0"
LENGTHS = [1, 5, 64, 65, 130, 400]  # around the KV block, and past the original context (128) of the scaled ropes
NEW_TOKENS = 12
HERE = pathlib.Path(__file__).resolve().parent / "families"

YARN = {"beta_fast": 32, "beta_slow": 1, "factor": 8, "original_max_position_embeddings": 128}
LATENT = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4, "kv_lora_rank": 32,
          "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16, "intermediate_size": 80,
          "attention_bias": False, "hidden_act": "silu", "first_k_dense_replace": 1, "moe_layer_freq": 1,
          "max_position_embeddings": 1024, "vocab_size": 128, "num_hidden_layers": 3, "bos_token_id": 0,
          "eos_token_id": 1, "tie_word_embeddings": False}

# Forms of real checkpoints: rope_theta with rope_scaling, and rope_parameters as newer releases write it.
FAMILIES = {
    # Tied head, Llama 3.1's rope, two KV heads for eight query heads.
    "llama": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 48, "num_attention_heads": 8,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 96, "num_hidden_layers": 3, "vocab_size": 128,
        "attention_bias": False, "mlp_bias": False, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "max_position_embeddings": 1024, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": [1, 2],
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                            "high_freq_factor": 4.0, "original_max_position_embeddings": 128}},
    # Biases, seven query heads for each KV head, sizes that do not divide by eight.
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 32, "num_attention_heads": 28,
        "num_key_value_heads": 4, "head_dim": 16, "intermediate_size": 148, "num_hidden_layers": 2, "vocab_size": 140,
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 1024, "tie_word_embeddings": False,
        "use_sliding_window": False, "sliding_window": 64, "max_window_layers": 1, "rope_theta": 10000.0,
        "bos_token_id": 0, "eos_token_id": 1},
    # A norm of each head, heads wider than the model, and the YaRN of R1-0528-Qwen3-8B: its attn_factor, which transformers
    # does not read, makes the temperature 1, so that is said to it (attention_factor).
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 48, "num_attention_heads": 8,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 96, "num_hidden_layers": 3, "vocab_size": 128,
        "attention_bias": False, "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 1024,
        "tie_word_embeddings": False, "use_sliding_window": False, "sliding_window": None, "max_window_layers": 3,
        "rope_theta": 10000.0, "bos_token_id": 0, "eos_token_id": 1,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128,
                         "attn_factor": 0.8782488562869419}},
    # No q_lora, one group, two shared experts.
    "deepseek_v2_lite": LATENT | {
        "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "q_lora_rank": None,
        "rms_norm_eps": 1e-6, "moe_intermediate_size": 24, "n_routed_experts": 8, "n_shared_experts": 2,
        "num_experts_per_tok": 3, "n_group": 1, "topk_group": 1, "norm_topk_prob": False,
        "routed_scaling_factor": 1.0, "scoring_func": "softmax", "topk_method": "greedy", "rope_theta": 10000,
        "rope_scaling": YARN | {"type": "yarn", "mscale": 0.707, "mscale_all_dim": 0.707}},
    "deepseek_v2": LATENT | {
        "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "q_lora_rank": 32,
        "rms_norm_eps": 1e-6, "moe_intermediate_size": 16, "n_routed_experts": 16, "n_shared_experts": 2,
        "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2, "norm_topk_prob": False,
        "routed_scaling_factor": 4.0, "scoring_func": "softmax", "topk_method": "group_limited_greedy",
        "rope_parameters": YARN | {"rope_type": "yarn", "rope_theta": 10000.0, "mscale": 1.0, "mscale_all_dim": 1.0}},
    # The last layer's biased scores are all negative, so masked groups must not count as zero. The norms of the
    # latents have an epsilon of their own (1e-6).
    "deepseek_v3": LATENT | {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "q_lora_rank": 32,
        "rms_norm_eps": 1e-3, "moe_intermediate_size": 16, "n_routed_experts": 16, "n_shared_experts": 1,
        "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2, "norm_topk_prob": True,
        "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "rope_theta": 10000,
        "rope_scaling": YARN | {"type": "yarn", "mscale": 1.0, "mscale_all_dim": 1.0}},
    # The form of Moonlight: V3 without q_lora, without groups, without YaRN.
    "deepseek_v3_small": LATENT | {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "q_lora_rank": None,
        "rms_norm_eps": 1e-5, "moe_intermediate_size": 24, "n_routed_experts": 8, "n_shared_experts": 2,
        "num_experts_per_tok": 3, "n_group": 1, "topk_group": 1, "norm_topk_prob": True,
        "routed_scaling_factor": 2.446, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
        "rope_theta": 50000.0, "num_hidden_layers": 2},
    # An indexer that keeps an eighth of the longest prompt. With few heads many scores would be zero, and which of
    # equal scores transformers keeps is not said.
    "deepseek_v32": LATENT | {
        "architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32", "q_lora_rank": 32,
        "rms_norm_eps": 1e-3, "moe_intermediate_size": 16, "n_routed_experts": 8, "n_shared_experts": 1,
        "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "norm_topk_prob": True,
        "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "rope_theta": 10000,
        "rope_scaling": YARN | {"type": "yarn", "mscale": 1.0, "mscale_all_dim": 1.0},
        "index_n_heads": 20, "index_head_dim": 48, "index_topk": 50},
}


def mlp_shapes(prefix, hidden, width):
    return {prefix + "gate_proj.weight": (width, hidden), prefix + "up_proj.weight": (width, hidden),
            prefix + "down_proj.weight": (hidden, width)}


def attention_shapes(prefix, c):
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    if "kv_lora_rank" not in c:
        head = c["head_dim"]
        shapes = {prefix + "o_proj.weight": (hidden, heads * head)}
        for name, count in (("q", heads), ("k", c["num_key_value_heads"]), ("v", c["num_key_value_heads"])):
            shapes[f"{prefix}{name}_proj.weight"] = (count * head, hidden)
            if c["model_type"] == "qwen2":
                shapes[f"{prefix}{name}_proj.bias"] = (count * head,)
        if c["model_type"] == "qwen3":
            shapes |= {prefix + "q_norm.weight": (head,), prefix + "k_norm.weight": (head,)}
        return shapes
    qk, latent = c["qk_nope_head_dim"] + c["qk_rope_head_dim"], c["kv_lora_rank"]
    shapes = {prefix + "kv_a_proj_with_mqa.weight": (latent + c["qk_rope_head_dim"], hidden),
              prefix + "kv_a_layernorm.weight": (latent,),
              prefix + "kv_b_proj.weight": (heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), latent),
              prefix + "o_proj.weight": (hidden, heads * c["v_head_dim"])}
    if c["q_lora_rank"]:
        shapes |= {prefix + "q_a_proj.weight": (c["q_lora_rank"], hidden),
                   prefix + "q_a_layernorm.weight": (c["q_lora_rank"],),
                   prefix + "q_b_proj.weight": (heads * qk, c["q_lora_rank"])}
    else:
        shapes[prefix + "q_proj.weight"] = (heads * qk, hidden)
    if "index_topk" in c:
        index_heads, index_dim = c["index_n_heads"], c["index_head_dim"]
        shapes |= {prefix + "indexer.wq_b.weight": (index_heads * index_dim, c["q_lora_rank"]),
                   prefix + "indexer.wk.weight": (index_dim, hidden), prefix + "indexer.k_norm.weight": (index_dim,),
                   prefix + "indexer.k_norm.bias": (index_dim,),
                   prefix + "indexer.weights_proj.weight": (index_heads, hidden)}
    return shapes


def shapes_of(c):
    hidden = c["hidden_size"]
    shapes = {"model.embed_tokens.weight": (c["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (c["vocab_size"], hidden)
    for layer in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes |= {prefix + "input_layernorm.weight": (hidden,), prefix + "post_attention_layernorm.weight": (hidden,)}
        shapes |= attention_shapes(prefix + "self_attn.", c)
        if layer < c.get("first_k_dense_replace", c["num_hidden_layers"]):
            shapes |= mlp_shapes(prefix + "mlp.", hidden, c["intermediate_size"])
            continue
        shapes[prefix + "mlp.gate.weight"] = (c["n_routed_experts"], hidden)
        if c["model_type"] in ("deepseek_v3", "deepseek_v32"):
            shapes[prefix + "mlp.gate.e_score_correction_bias"] = (c["n_routed_experts"],)
        width = c["moe_intermediate_size"]
        shapes |= mlp_shapes(prefix + "mlp.shared_experts.", hidden, width * c["n_shared_experts"])
        for expert in range(c["n_routed_experts"]):
            shapes |= mlp_shapes(f"{prefix}mlp.experts.{expert}.", hidden, width)
    return shapes


def tensors_of(name, c):
    """Random values that make the parts of the graph matter about alike."""
    tensors = {}
    for key, shape in shapes_of(c).items():
        noise = numpy.random.default_rng(zlib.crc32(f"{name}/{key}".encode())).standard_normal(shape)
        dtype = torch.bfloat16
        if key.endswith("norm.weight"):
            values = 1 + 0.2 * noise
        elif key.endswith("e_score_correction_bias"):
            last = f".{c['num_hidden_layers'] - 1}." in key and c["n_group"] > 1
            values, dtype = 0.1 * noise - (2 if last else 0), torch.float32
        elif key.endswith(".bias"):
            values = 0.5 * noise
        elif key.endswith("gate.weight"):
            values = noise / 4
        else:
            values = noise / shape[-1] ** 0.5
        tensors[key] = torch.from_numpy(values).to(dtype).contiguous()
    return tensors


def kept_positions(length):
    return sorted({0, length // 3, length - 1} | {p for p in (63, 64, 127, 128, 129) if p < length})


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def load(folder, dtype):
    experts = {"experts_implementation": "eager"} if dtype == torch.float64 else {}  # the default takes no FP64
    config = transformers.AutoConfig.from_pretrained(folder)
    rope = config.rope_parameters
    if "attn_factor" in rope:
        rope["attention_factor"] = (0.1 * math.log(rope["factor"]) + 1) * rope.pop("attn_factor")
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=dtype, attn_implementation="eager", output_loading_info=True, **experts)


def make(name, c):
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(c, indent=1) + "\n", encoding="ascii")
    save_file(tensors_of(name, c), folder / "model.safetensors", metadata={"format": "pt"})
    model, info = load(folder, torch.float32)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[what]:
            sys.exit(f"{name}: {what}: {info[what]}")
    model.eval()
    exact = load(folder, torch.float64)[0].eval()
    random = numpy.random.default_rng(zlib.crc32(name.encode()))
    cases, rows = [], []
    for length in LENGTHS:
        ids = random.integers(0, c["vocab_size"], length).tolist()
        positions = kept_positions(length)
        logits = logits_of(model, ids)
        # Else some choice, of an expert or of what is attended to, hangs on rounding.
        difference = numpy.abs(logits_of(exact, ids) - logits).max()
        if difference > 1e-3:
            sys.exit(f"{name}: {length} tokens differ by {difference:.1e} from the same in FP64: choose other weights")
        rows.append(logits[positions])
        continuation, context = [], list(ids)
        for _ in range(NEW_TOKENS):
            # No cache: the continuation does not depend on a second code path of the reference.
            continuation.append(int(logits_of(model, context)[-1].argmax()))
            context.append(continuation[-1])
        cases.append({"tokens": ids, "positions": positions, "continuation": continuation})
    logits = numpy.concatenate(rows)
    logits.astype("<f4").tofile(folder / "golden.f32")
    with open(folder / "golden.json", "w", encoding="ascii") as out:
        out.write('{"vocab": %d, "cases": [\n' % c["vocab_size"])
        out.write(",\n".join(json.dumps(case) for case in cases))
        out.write("\n]}\n")
    print(f"{name}: {sum(p.stat().st_size for p in folder.iterdir()) >> 10} KiB, logits {logits.std():.2f}", flush=True)


def main():
    if transformers.__version__ != TRANSFORMERS:
        sys.exit(f"transformers {TRANSFORMERS} is needed, this is {transformers.__version__}")
    torch.set_num_threads(1)
    for name in sys.argv[1:] or FAMILIES:
        make(name, FAMILIES[name])


if __name__ == "__main__":
    main()
