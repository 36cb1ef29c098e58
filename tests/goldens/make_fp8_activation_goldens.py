#!/usr/bin/env python3
"""Makes the reference logits with FP8 activations that tests/model/fp8_activations_test.cc compares with.

    python3 -m venv venv && venv/bin/pip install numpy==2.4.6
    venv/bin/python tests/goldens/make_fp8_activation_goldens.py

What goes into a product with a weight in FP8 is rounded to FP8 first, as GPUs run DeepSeek's checkpoints: 128 inputs of
a token have one scale, in FP32 or a power of two. The graph is deepseek_v3_reference.py's, held to the logits of
transformers (fp8-tiny.json) without that rounding. Writes fp8-activations.json: a prompt and the logits of all its
tokens, once for each kind of scale.
"""
import json
import pathlib
import sys

import numpy as np

from deepseek_v3_reference import BLOCK, E4M3, Model, from_e4m3, to_e4m3

HERE = pathlib.Path(__file__).resolve().parent
TOKENS = 14
VERGE = 1e-6  # nearer than this, relatively, to the middle of two FP8 values FP32 may choose the other


def distance_to_verge(x):
    middles = (E4M3[:126] + E4M3[1:127]) / 2
    return (np.abs(np.abs(x)[..., None] - middles) / middles).min()


def quantised(x, power_of_two):
    """The FP8 value of each element, times its block's scale."""
    out = np.empty_like(x)
    for at in range(0, x.shape[-1], BLOCK):
        block = x[:, at:at + BLOCK]
        scale = np.maximum(np.abs(block).max(-1, keepdims=True), 1e-4) / 448
        if power_of_two:
            scale = 2.0 ** np.ceil(np.log2(scale))
        if distance_to_verge(block / scale) < VERGE:
            sys.exit("what a value is rounded to hangs on FP32's own rounding: choose other tokens")
        out[:, at:at + BLOCK] = from_e4m3(to_e4m3(np.clip(block / scale, -448, 448))) * scale
    return out


class QuantisedModel(Model):
    power_of_two = False

    def linear(self, x, name):
        return super().linear(quantised(x, self.power_of_two) if self.w.is_fp8(name) else x, name)


def main():
    golden = json.loads((HERE / "fp8-tiny.json").read_text())
    tokens = golden["tokens"][:TOKENS]

    def logits_of(model):
        return model.states(tokens) @ model.w["lm_head.weight"].T

    exact = logits_of(Model(HERE / "fp8-tiny"))
    worst = max(float(np.abs(exact[p] - golden["logits"][i]).max())
                for i, p in enumerate(golden["positions"]) if p < TOKENS)
    print(f"without rounding: largest difference to transformers {worst:.2e}")
    if worst > 1e-3:
        sys.exit("this reference is not the model's graph")
    model = QuantisedModel(HERE / "fp8-tiny")
    cases = []
    for model.power_of_two in (False, True):
        logits = logits_of(model)
        print(f"power of two: {model.power_of_two}, the rounding changes logits by {np.abs(logits - exact).max():.2e}")
        cases.append({"power_of_two": model.power_of_two,
                      "logits": [[float(f"{v:.8g}") for v in row] for row in logits]})
    (HERE / "fp8-activations.json").write_text(json.dumps({"tokens": tokens, "cases": cases}) + "\n")


if __name__ == "__main__":
    main()
