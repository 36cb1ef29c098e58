"""LoRA adapters of models/deepseek-tiny as PEFT saves them, with random weights."""

import array
import json
import pathlib
import random

MODEL = pathlib.Path(__file__).resolve().parents[2] / "models" / "deepseek-tiny"
RANK = 4


def modules():
    """Name, outputs and inputs of linears of models/deepseek-tiny, of every kind that can have an adapter."""
    c = json.loads((MODEL / "config.json").read_text())
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    for layer in range(c["num_hidden_layers"]):
        attention, mlp = f"model.layers.{layer}.self_attn.", f"model.layers.{layer}.mlp."
        width = c["intermediate_size"]
        if layer >= c["first_k_dense_replace"]:
            mlp, width = mlp + "shared_experts.", c["moe_intermediate_size"] * c["n_shared_experts"]
        yield attention + "q_a_proj", c["q_lora_rank"], hidden
        yield attention + "q_b_proj", heads * (c["qk_nope_head_dim"] + c["qk_rope_head_dim"]), c["q_lora_rank"]
        yield attention + "o_proj", hidden, heads * c["v_head_dim"]
        yield mlp + "up_proj", width, hidden
        yield mlp + "down_proj", hidden, width


def write_adapter(folder, seed, **changes):
    """As PEFT saves one, with random weights that are large enough to change answers."""
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "bias": "none", "target_modules": "all-linear"}
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    header, data = {}, b""
    for module, outputs, inputs in modules():
        for part, shape, scale in (("A", (RANK, inputs), inputs**-0.5), ("B", (outputs, RANK), 0.4)):
            name = f"base_model.model.{module}.lora_{part}.weight"
            noise = random.Random(f"{seed}/{name}")
            values = array.array("f", (noise.gauss(0, scale) for _ in range(shape[0] * shape[1])))
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * len(values)]}
            data += values.tobytes()
    text = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    return folder
