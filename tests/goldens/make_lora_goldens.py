#!/usr/bin/env python3
"""Makes LoRA adapters for the tiny checkpoints of make_family_goldens.py and PEFT's logits with them, for
tests/model/adapter_test.cc.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2
    venv/bin/python tests/goldens/make_lora_goldens.py [family...]

Writes families/NAME/lora-all/ (every linear that can have an adapter, in FP32) and lora-some/ (two of them, another
rank, rsLoRA, in BF16): adapter_config.json and adapter_model.safetensors as PEFT saves them, with weights that are a
function of their names, and golden.json and golden.f32 as make_family_goldens.py has them.
"""
import json
import shutil
import sys
import zlib

import numpy
import peft
import torch
import transformers
from peft.utils import transformers_weight_conversion
from make_family_goldens import HERE, TRANSFORMERS, kept_positions

PEFT = "0.21.2"
LENGTHS = [1, 65, 140]
NEW_TOKENS = 6

GROUPED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LATENT = ["kv_a_proj_with_mqa", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Of each family: all of them, some of them.
TARGETS = {
    "llama": (GROUPED, ["q_proj", "v_proj"]),
    "qwen2": (GROUPED, ["k_proj", "down_proj"]),
    "deepseek_v3": (LATENT + ["q_a_proj", "q_b_proj"], ["q_b_proj", "up_proj"]),
    "deepseek_v3_small": (LATENT + ["q_proj"], ["kv_a_proj_with_mqa", "gate_proj"]),
}


def configs(family):
    every, some = TARGETS[family]
    common = {"task_type": "CAUSAL_LM", "lora_dropout": 0.0, "bias": "none"}
    return {
        "lora-all": (peft.LoraConfig(r=4, lora_alpha=8, target_modules=every, **common), torch.float32),
        "lora-some": (peft.LoraConfig(r=3, lora_alpha=5, target_modules=some, use_rslora=True, **common),
                      torch.bfloat16),
    }


# PEFT takes the names gate_proj, up_proj and down_proj of a mixture of experts to mean the routed experts' fused
# parameters and leaves dense MLPs and shared experts out. Those are meant here.
transformers_weight_conversion._convert_peft_config_moe = lambda config, model: None


def base_model(family):
    return transformers.AutoModelForCausalLM.from_pretrained(
        HERE / family, dtype=torch.float32, attn_implementation="eager").eval()


def save_adapter(family, name, config, dtype):
    """An adapter that changes the answers about as much as the model's own weights do."""
    folder = HERE / family / name
    shutil.rmtree(folder, ignore_errors=True)
    model = peft.get_peft_model(base_model(family), config)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "lora_" not in key:
                continue
            noise = numpy.random.default_rng(zlib.crc32(f"{family}/{name}/{key}".encode())).standard_normal(value.shape)
            scale = value.shape[1] ** -0.5 if "lora_A" in key else 0.2
            value.data = torch.from_numpy(noise * scale).to(dtype)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    # PEFT writes a set in any order, and the folder of the base model.
    path = folder / "adapter_config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    written["target_modules"] = sorted(written["target_modules"])
    written["base_model_name_or_path"] = family
    path.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n", encoding="ascii")
    return folder


def make(family, name, config, dtype):
    folder = save_adapter(family, name, config, dtype)
    model = peft.PeftModel.from_pretrained(base_model(family), folder).float().eval()
    random = numpy.random.default_rng(zlib.crc32(f"{family}/{name}".encode()))
    vocab = model.config.vocab_size
    cases, rows = [], []
    with torch.no_grad():
        for length in LENGTHS:
            ids = random.integers(0, vocab, length).tolist()
            positions = kept_positions(length)
            rows.append(model(torch.tensor([ids])).logits[0].numpy()[positions])
            continuation, context = [], list(ids)
            for _ in range(NEW_TOKENS):
                continuation.append(int(model(torch.tensor([context])).logits[0, -1].argmax()))
                context.append(continuation[-1])
            cases.append({"tokens": ids, "positions": positions, "continuation": continuation})
    numpy.concatenate(rows).astype("<f4").tofile(folder / "golden.f32")
    with open(folder / "golden.json", "w", encoding="ascii") as out:
        out.write('{"vocab": %d, "cases": [\n' % vocab)
        out.write(",\n".join(json.dumps(case) for case in cases))
        out.write("\n]}\n")
    print(f"{family}/{name}: {sum(p.stat().st_size for p in folder.iterdir()) >> 10} KiB", flush=True)


def main():
    for module, wanted in ((transformers, TRANSFORMERS), (peft, PEFT)):
        if module.__version__ != wanted:
            sys.exit(f"{module.__name__} {wanted} is needed, this is {module.__version__}")
    torch.set_num_threads(1)
    for family in sys.argv[1:] or TARGETS:
        for name, (config, dtype) in configs(family).items():
            make(family, name, config, dtype)


if __name__ == "__main__":
    main()
