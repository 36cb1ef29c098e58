#!/usr/bin/env python3
"""Makes the reference drafts that tests/model/draft_test.cc compares with.

    python3 -m venv venv && venv/bin/pip install numpy==2.4.6
    venv/bin/python tests/goldens/make_mtp_goldens.py

transformers has no multi-token-prediction layer, so this adds one to deepseek_v3_reference.py. The main model is held to
the logits of transformers (deepseek-tiny.f32) before its drafts are written to deepseek-tiny-mtp.json: for prompts of
deepseek-tiny.json cut after `kept` tokens and followed by the next one, what the layer expects to come.
"""
import json
import pathlib
import sys

import numpy as np

from deepseek_v3_reference import Model, norm

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE.parent.parent / "models" / "deepseek-tiny"
DRAFTS = 3
TOLERANCE = 1e-3  # drafts whose logit leads by less are left out


class DraftModel(Model):
    def drafts(self, states, tokens):
        """states of tokens[:-1]; what comes after tokens[-1], and by how much each draft leads."""
        p = f"model.layers.{self.c['num_hidden_layers']}."
        states, following = list(states), list(tokens[1:])
        drafts, leads = [], []
        for _ in range(DRAFTS):
            embedding = self.w["model.embed_tokens.weight"][following]
            embedding[0] = 0
            joined = np.concatenate([norm(embedding, self.w[p + "enorm.weight"], self.eps),
                                     norm(np.array(states), self.w[p + "hnorm.weight"], self.eps)], -1)
            x = self.layer(self.linear(joined, p + "eh_proj.weight"), self.c["num_hidden_layers"])
            out = norm(x[-1], self.w[p + "shared_head.norm.weight"], self.eps)
            logits = self.w["lm_head.weight"] @ out
            order = np.argsort(-logits, kind="stable")
            drafts.append(int(order[0]))
            leads.append(float(logits[order[0]] - logits[order[1]]))
            states.append(out)
            following.append(drafts[-1])
        return drafts, leads


def main():
    model = DraftModel(MODEL)
    goldens = json.loads((HERE / "deepseek-tiny.json").read_text())
    logits = np.fromfile(HERE / "deepseek-tiny.f32", "<f4").reshape(-1, goldens["vocab"])
    cases, row, worst = [], 0, 0.0
    for number, case in enumerate(goldens["cases"]):
        tokens, positions = case["tokens"] + case["continuation"], case["positions"]
        wanted = logits[row:row + len(positions)]
        row += len(positions)
        if len(tokens) > 800:
            continue
        states = model.states(tokens)
        ours = states[positions] @ model.w["lm_head.weight"].T
        worst = max(worst, float(np.abs(ours - wanted).max()))
        length = len(case["tokens"])
        for kept in sorted({1, 2, length // 2, length - 1, length, length + 1, length + 7, length + 14}):
            if not 1 <= kept < len(tokens):
                continue
            drafts, leads = model.drafts(states[:kept], tokens[:kept + 1])
            sure = next((i for i, lead in enumerate(leads) if lead < TOLERANCE), DRAFTS)
            cases.append({"case": number, "kept": kept, "drafts": drafts[:sure]})
    print(f"main model: largest difference to transformers {worst:.2e}; {len(cases)} drafts")
    if worst > 1e-3:
        sys.exit("this reference is not the model's graph")
    with open(HERE / "deepseek-tiny-mtp.json", "w", encoding="ascii") as out:
        out.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
