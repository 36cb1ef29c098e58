#!/usr/bin/env python3
"""Writes a checkpoint in the shapes of R1-Distill-Qwen-1.5B with random weights in BF16, and the same weights as a GGUF
file for llama.cpp, so that both can be measured on the same numbers.

    python3 -m venv venv && venv/bin/pip install numpy gguf
    venv/bin/python bench/same_weights.py FOLDER [--layers 28] [--types BF16 Q8_0 Q4_0]

FOLDER then has config.json and model.safetensors (`build/release/model-bench 2 512 5 FOLDER`), and BF16.gguf and so on
(`llama-bench -m FOLDER/BF16.gguf -t 2`), of which Q8_0 and Q4_0 are these weights rounded by llama.cpp's own rules. The
vocabulary is numbers behind the tokens of chats with models/deepseek-tiny, whose template it has: each token is some
text, and prompts can be lists of tokens (bench/peers.py).
"""
import argparse
import json
import pathlib
import struct

import gguf
import numpy as np

HIDDEN, WIDTH, HEADS, KV_HEADS, HEAD, VOCAB, CONTEXT, EPS, THETA = 1536, 8960, 12, 2, 128, 151936, 131072, 1e-6, 10000.0
TINY = pathlib.Path(__file__).parent.parent / "models/deepseek-tiny"
SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"]
TOKENS = SPECIAL + [str(token) for token in range(len(SPECIAL), VOCAB)]


def config(layers: int) -> dict:
    return {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "hidden_size": HIDDEN,
        "intermediate_size": WIDTH, "num_hidden_layers": layers, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB, "max_position_embeddings": CONTEXT, "rms_norm_eps": EPS,
        "rope_theta": THETA, "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1}


def tokenizer() -> dict:
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
            "vocab": {name: token for token, name in enumerate(TOKENS)}, "merges": []}}


def tensors(layers: int):
    """(name in safetensors, name in GGUF, shape)"""
    yield "model.embed_tokens.weight", "token_embd.weight", (VOCAB, HIDDEN)
    for i in range(layers):
        ours, theirs = f"model.layers.{i}.", f"blk.{i}."
        for name, short, rows in (("q", "q", HEADS), ("k", "k", KV_HEADS), ("v", "v", KV_HEADS)):
            yield f"{ours}self_attn.{name}_proj.weight", f"{theirs}attn_{short}.weight", (rows * HEAD, HIDDEN)
            yield f"{ours}self_attn.{name}_proj.bias", f"{theirs}attn_{short}.bias", (rows * HEAD,)
        yield f"{ours}self_attn.o_proj.weight", f"{theirs}attn_output.weight", (HIDDEN, HEADS * HEAD)
        yield f"{ours}input_layernorm.weight", f"{theirs}attn_norm.weight", (HIDDEN,)
        yield f"{ours}post_attention_layernorm.weight", f"{theirs}ffn_norm.weight", (HIDDEN,)
        for name, shape in (("gate", (WIDTH, HIDDEN)), ("up", (WIDTH, HIDDEN)), ("down", (HIDDEN, WIDTH))):
            yield f"{ours}mlp.{name}_proj.weight", f"{theirs}ffn_{name}.weight", shape
    yield "model.norm.weight", "output_norm.weight", (HIDDEN,)
    yield "lm_head.weight", "output.weight", (VOCAB, HIDDEN)


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


def write_safetensors(path: pathlib.Path, layers: int) -> None:
    header, at = {}, 0
    for name, _, shape in tensors(layers):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    noise = Noise()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, _, shape in tensors(layers):
            bits(noise, name, shape).tofile(file)


def write_gguf(path: pathlib.Path, layers: int, kind: gguf.GGMLQuantizationType) -> None:
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(layers)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(THETA)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.name}"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([name.encode() for name in TOKENS])
    writer.add_token_types([gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * (VOCAB - len(SPECIAL)))
    writer.add_token_merges(["1 2"])
    writer.add_bos_token_id(SPECIAL.index("<｜begin▁of▁sentence｜>"))
    writer.add_eos_token_id(SPECIAL.index("<｜end▁of▁sentence｜>"))
    noise = Noise()
    for name, theirs, shape in tensors(layers):
        values = bits(noise, name, shape)
        plain = (values.astype(np.uint32) << 16).view(np.float32)
        if len(shape) == 1:
            writer.add_tensor(theirs, plain)
        else:
            writer.add_tensor(theirs, gguf.quants.quantize(plain, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--types", nargs="+", default=["BF16"], choices=["BF16", "Q8_0", "Q4_0"])
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
            ("config.json", config(arguments.layers)), ("tokenizer.json", tokenizer()),
            ("tokenizer_config.json", json.loads((TINY / "tokenizer_config.json").read_text(encoding="utf-8")))):
        (arguments.folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    write_safetensors(arguments.folder / "model.safetensors", arguments.layers)
    for name in arguments.types:
        write_gguf(arguments.folder / f"{name}.gguf", arguments.layers, gguf.GGMLQuantizationType[name])


if __name__ == "__main__":
    main()
