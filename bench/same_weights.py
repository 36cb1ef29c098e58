#!/usr/bin/env python3
"""Writes a checkpoint in the shapes of R1-Distill-Qwen-1.5B or DeepSeek-V2-Lite with random weights in BF16, and the same
weights as a GGUF file for llama.cpp, so that both can be measured on the same numbers.

    python3 -m venv venv && venv/bin/pip install numpy gguf
    venv/bin/python bench/same_weights.py FOLDER [--shape qwen-1.5b] [--layers 28] [--types BF16 Q8_0 Q4_0]

FOLDER then has config.json and model.safetensors (`build/release/model-bench 2 512 5 FOLDER`), and BF16.gguf and so on
(`llama-bench -m FOLDER/BF16.gguf -t 2`), of which Q8_0 and Q4_0 are these weights rounded by llama.cpp's own rules. The
vocabulary is numbers behind the tokens of chats with models/deepseek-tiny, whose template it has: each token is some
text, and prompts can be lists of tokens (bench/peers.py). V2-Lite's random routers send tokens to all experts alike.
"""
import argparse
import dataclasses
import json
import pathlib
import struct
from collections.abc import Callable, Iterator

import gguf
import numpy as np

TINY = pathlib.Path(__file__).parent.parent / "models/deepseek-tiny"
SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"]


@dataclasses.dataclass
class Weight:
    """Tensors of one shape in safetensors, and what they are in GGUF."""
    names: list[str]
    shape: tuple[int, ...]
    theirs: str  # several are one there, side by side
    cut: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None  # or this, by name
    plain: bool = False  # FP32 there, whatever the others are


def one(name: str, theirs: str, *shape: int, **more) -> Weight:
    return Weight([name], shape, theirs, **more)


def mlp(ours: str, theirs: str, suffix: str, hidden: int, width: int) -> Iterator[Weight]:
    for name, shape in (("gate", (width, hidden)), ("up", (width, hidden)), ("down", (hidden, width))):
        yield one(f"{ours}{name}_proj.weight", f"{theirs}ffn_{name}{suffix}.weight", *shape)


class Qwen:
    """R1-Distill-Qwen-1.5B"""
    kind, layers, config = "qwen2", 28, {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "hidden_size": 1536,
        "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "bos_token_id": 0, "eos_token_id": 1}

    @classmethod
    def layer(cls, number: int, ours: str, theirs: str) -> Iterator[Weight]:
        c = cls.config
        hidden, head = c["hidden_size"], c["hidden_size"] // c["num_attention_heads"]
        for name, heads in (("q", c["num_attention_heads"]), ("k", c["num_key_value_heads"]), ("v", c["num_key_value_heads"])):
            yield one(f"{ours}self_attn.{name}_proj.weight", f"{theirs}attn_{name}.weight", heads * head, hidden)
            yield one(f"{ours}self_attn.{name}_proj.bias", f"{theirs}attn_{name}.bias", heads * head)
        yield one(f"{ours}self_attn.o_proj.weight", f"{theirs}attn_output.weight", hidden, hidden)
        yield from mlp(f"{ours}mlp.", theirs, "", hidden, c["intermediate_size"])

    @classmethod
    def describe(cls, writer: gguf.GGUFWriter) -> None:
        writer.add_head_count_kv(cls.config["num_key_value_heads"])


class V2Lite:
    """DeepSeek-V2-Lite"""
    kind, layers, config = "deepseek2", 27, {
        "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "attention_bias": False, "hidden_act": "silu",
        "hidden_size": 2048, "intermediate_size": 10944, "num_attention_heads": 16, "num_key_value_heads": 16,
        "q_lora_rank": None, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_intermediate_size": 1408,
        "moe_layer_freq": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "topk_method": "greedy",
        "scoring_func": "softmax", "norm_topk_prob": False, "routed_scaling_factor": 1.0, "vocab_size": 102400,
        "max_position_embeddings": 163840, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "rope_scaling": {
            "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707,
            "original_max_position_embeddings": 4096},
        "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1}

    @classmethod
    def layer(cls, number: int, ours: str, theirs: str) -> Iterator[Weight]:
        c = cls.config
        hidden, heads, latent = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"]
        nope, rope, value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]

        def absorbed(kv_b: np.ndarray) -> dict[str, np.ndarray]:
            each = kv_b.reshape(heads, nope + value, latent)
            return {f"{theirs}attn_k_b.weight": np.ascontiguousarray(each[:, :nope].transpose(0, 2, 1)),
                    f"{theirs}attn_v_b.weight": np.ascontiguousarray(each[:, nope:])}

        attention = f"{ours}self_attn."
        yield one(f"{attention}q_proj.weight", f"{theirs}attn_q.weight", heads * (nope + rope), hidden)
        yield one(f"{attention}kv_a_proj_with_mqa.weight", f"{theirs}attn_kv_a_mqa.weight", latent + rope, hidden)
        yield one(f"{attention}kv_a_layernorm.weight", f"{theirs}attn_kv_a_norm.weight", latent)
        yield one(f"{attention}kv_b_proj.weight", "", heads * (nope + value), latent, cut=absorbed)
        yield one(f"{attention}o_proj.weight", f"{theirs}attn_output.weight", hidden, heads * value)
        if number < c["first_k_dense_replace"]:
            yield from mlp(f"{ours}mlp.", theirs, "", hidden, c["intermediate_size"])
            return
        experts, width = c["n_routed_experts"], c["moe_intermediate_size"]
        yield one(f"{ours}mlp.gate.weight", f"{theirs}ffn_gate_inp.weight", experts, hidden, plain=True)
        for of_one in mlp("", theirs, "_exps", hidden, width):
            names = [f"{ours}mlp.experts.{expert}.{of_one.names[0]}" for expert in range(experts)]
            yield dataclasses.replace(of_one, names=names)
        yield from mlp(f"{ours}mlp.shared_experts.", theirs, "_shexp", hidden, c["n_shared_experts"] * width)

    @classmethod
    def describe(cls, writer: gguf.GGUFWriter) -> None:
        c, yarn = cls.config, cls.config["rope_scaling"]
        latent, rope = c["kv_lora_rank"], c["qk_rope_head_dim"]
        writer.add_head_count_kv(1)  # to latents, all heads attend to the same
        writer.add_q_lora_rank(0)  # asked for with other numbers of layers than V2-Lite's
        writer.add_kv_lora_rank(latent)
        writer.add_key_length(latent + rope)
        writer.add_value_length(latent)
        writer.add_key_length_mla(c["qk_nope_head_dim"] + rope)
        writer.add_value_length_mla(c["v_head_dim"])
        writer.add_leading_dense_block_count(c["first_k_dense_replace"])
        writer.add_expert_feed_forward_length(c["moe_intermediate_size"])
        writer.add_expert_count(c["n_routed_experts"])
        writer.add_expert_used_count(c["num_experts_per_tok"])
        writer.add_expert_shared_count(c["n_shared_experts"])
        writer.add_expert_weights_scale(c["routed_scaling_factor"])
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX)
        writer.add_rope_dimension_count(rope)
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(yarn["factor"])
        writer.add_rope_scaling_orig_ctx_len(yarn["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_log_mul(0.1 * yarn["mscale_all_dim"])


SHAPES = {"qwen-1.5b": Qwen, "v2-lite": V2Lite}


def vocabulary(size: int) -> list[str]:
    return SPECIAL + [str(token) for token in range(len(SPECIAL), size)]


def tokenizer(size: int) -> dict:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": token, "content": name, **special} for token, name in enumerate(SPECIAL)],
        "normalizer": None, "post_processor": None, "decoder": byte_level,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated", "invert": False}, byte_level]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {name: token for token, name in enumerate(vocabulary(size))}, "merges": []}}


def weights(shape, layers: int) -> Iterator[Weight]:
    hidden, vocab = shape.config["hidden_size"], shape.config["vocab_size"]
    yield one("model.embed_tokens.weight", "token_embd.weight", vocab, hidden)
    for number in range(layers):
        ours, theirs = f"model.layers.{number}.", f"blk.{number}."
        yield one(f"{ours}input_layernorm.weight", f"{theirs}attn_norm.weight", hidden)
        yield from shape.layer(number, ours, theirs)
        yield one(f"{ours}post_attention_layernorm.weight", f"{theirs}ffn_norm.weight", hidden)
    yield one("model.norm.weight", "output_norm.weight", hidden)
    yield one("lm_head.weight", "output.weight", vocab, hidden)


class Noise:
    """The same values again and again, from another place on each time."""

    def __init__(self):
        noise = np.random.default_rng(1).normal(0, 0.02, 1 << 24).astype(np.float32)
        self.values = (noise.view(np.uint32) >> 16).astype(np.uint16)
        self.at = 0

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """Bits of BF16; norms are ones."""
        count = int(np.prod(shape))
        self.at = (self.at + 7919) % len(self.values)
        taken = np.resize(np.roll(self.values, -self.at), count)
        return taken.reshape(shape)


def bits(noise: Noise, name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, 0x3F80, np.uint16) if name.endswith("norm.weight") else noise.take(shape)


def write_safetensors(path: pathlib.Path, shape, layers: int) -> None:
    header, at = {}, 0
    for weight in weights(shape, layers):
        size = 2 * int(np.prod(weight.shape))
        for name in weight.names:
            header[name] = {"dtype": "BF16", "shape": list(weight.shape), "data_offsets": [at, at + size]}
            at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    noise = Noise()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for weight in weights(shape, layers):
            for name in weight.names:
                bits(noise, name, weight.shape).tofile(file)


def write_gguf(path: pathlib.Path, shape, layers: int, kind: gguf.GGMLQuantizationType) -> None:
    c = shape.config
    tokens = vocabulary(c["vocab_size"])
    writer = gguf.GGUFWriter(path, shape.kind)
    writer.add_block_count(layers)
    writer.add_vocab_size(c["vocab_size"])
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_rope_freq_base(c["rope_theta"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.name}"])
    shape.describe(writer)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([name.encode() for name in tokens])
    writer.add_token_types([gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["1 2"])
    writer.add_bos_token_id(SPECIAL.index("<｜begin▁of▁sentence｜>"))
    writer.add_eos_token_id(SPECIAL.index("<｜end▁of▁sentence｜>"))
    noise = Noise()
    for weight in weights(shape, layers):
        each = [bits(noise, name, weight.shape) for name in weight.names]
        values = each[0] if len(each) == 1 else np.stack(each)
        plain = (values.astype(np.uint32) << 16).view(np.float32)
        for theirs, part in (weight.cut(plain) if weight.cut else {weight.theirs: plain}).items():
            if len(weight.shape) == 1 or weight.plain:
                writer.add_tensor(theirs, part)
                continue
            # A product for each head of integers ends llama.cpp 0.3.36's AMX build in an assertion.
            of_part = gguf.GGMLQuantizationType.BF16 if weight.cut else kind
            writer.add_tensor(theirs, gguf.quants.quantize(part, of_part), raw_dtype=of_part)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--shape", default="qwen-1.5b", choices=SHAPES)
    parser.add_argument("--layers", type=int, help="default: as many as the model has")
    parser.add_argument("--types", nargs="+", default=["BF16"], choices=["BF16", "Q8_0", "Q4_0"])
    arguments = parser.parse_args()
    shape = SHAPES[arguments.shape]
    layers = arguments.layers or shape.layers
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
            ("config.json", shape.config | {"num_hidden_layers": layers}),
            ("tokenizer.json", tokenizer(shape.config["vocab_size"])),
            ("tokenizer_config.json", json.loads((TINY / "tokenizer_config.json").read_text(encoding="utf-8")))):
        (arguments.folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    write_safetensors(arguments.folder / "model.safetensors", shape, layers)
    for name in arguments.types:
        write_gguf(arguments.folder / f"{name}.gguf", shape, layers, gguf.GGMLQuantizationType[name])


if __name__ == "__main__":
    main()
