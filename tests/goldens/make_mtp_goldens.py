#!/usr/bin/env python3
"""Makes the reference drafts that tests/model/draft_test.cc compares with.

    python3 -m venv venv && venv/bin/pip install numpy==2.4.6
    venv/bin/python tests/goldens/make_mtp_goldens.py

transformers has no multi-token-prediction layer, so this is the DeepSeek-V3 graph once more, in NumPy and double
precision, written for plainness: keys and values are expanded, nothing is cached. Its main model is held to the logits
of transformers (deepseek-tiny.f32) before its drafts are written to deepseek-tiny-mtp.json: for prompts of
deepseek-tiny.json cut after `kept` tokens and followed by the next one, what the layer expects to come.
"""
import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE.parent.parent / "models" / "deepseek-tiny"
DRAFTS = 3
EPS = 1e-6
TOLERANCE = 1e-3  # drafts whose logit leads by less are left out


class Weights:
    """Tensors of a safetensors file by name, as float64."""

    def __init__(self, path):
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        self.header = json.loads(data[8:8 + size])
        self.data = data[8 + size:]

    def __getitem__(self, name):
        entry = self.header[name]
        begin, end = entry["data_offsets"]
        raw = self.data[begin:end]
        if entry["dtype"] == "F32":
            values = np.frombuffer(raw, "<f4")
        else:
            assert entry["dtype"] == "BF16", entry
            values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        return values.astype(np.float64).reshape(entry["shape"])


def norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Model:
    def __init__(self):
        self.c = json.loads((MODEL / "config.json").read_text())
        self.w = Weights(MODEL / "model.safetensors")
        yarn, dim, theta = self.c["rope_scaling"], self.c["qk_rope_head_dim"], self.c["rope_theta"]

        def pair(turns):
            return dim * np.log(yarn["original_max_position_embeddings"] / (turns * 2 * np.pi)) / (2 * np.log(theta))

        low, high = max(np.floor(pair(yarn["beta_fast"])), 0), min(np.ceil(pair(yarn["beta_slow"])), dim - 1)
        stretched = np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
        plain = theta ** (-2.0 * np.arange(dim // 2) / dim)
        self.frequency = plain / yarn["factor"] * stretched + plain * (1 - stretched)
        temperature = 0.1 * yarn["mscale_all_dim"] * np.log(yarn["factor"]) + 1
        self.scale = temperature ** 2 / np.sqrt(self.c["qk_nope_head_dim"] + dim)

    def rotate(self, x):
        """[tokens, heads, dim], pairs (2i, 2i + 1)."""
        angle = np.arange(len(x))[:, None] * self.frequency
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        a, b = x[..., 0::2], x[..., 1::2]
        return np.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape)

    def attention(self, x, p):
        c, w, t = self.c, self.w, len(x)
        heads, nope, latent = c["num_attention_heads"], c["qk_nope_head_dim"], c["kv_lora_rank"]
        q = norm(x @ w[p + "q_a_proj.weight"].T, w[p + "q_a_layernorm.weight"]) @ w[p + "q_b_proj.weight"].T
        q = q.reshape(t, heads, -1)
        kv_a = x @ w[p + "kv_a_proj_with_mqa.weight"].T
        kv = (norm(kv_a[:, :latent], w[p + "kv_a_layernorm.weight"]) @ w[p + "kv_b_proj.weight"].T).reshape(t, heads, -1)
        key = np.concatenate([kv[..., :nope], np.repeat(self.rotate(kv_a[:, None, latent:]), heads, 1)], -1)
        query = np.concatenate([q[..., :nope], self.rotate(q[..., nope:])], -1)
        scores = np.einsum("qhd,khd->hqk", query, key) * self.scale
        scores = np.where(np.tril(np.ones((t, t), bool)), scores, -np.inf)
        p_ = np.exp(scores - scores.max(-1, keepdims=True))
        p_ /= p_.sum(-1, keepdims=True)
        return np.einsum("hqk,khd->qhd", p_, kv[..., nope:]).reshape(t, -1) @ w[p + "o_proj.weight"].T

    def dense(self, x, p):
        gate = x @ self.w[p + "gate_proj.weight"].T
        return (gate * sigmoid(gate) * (x @ self.w[p + "up_proj.weight"].T)) @ self.w[p + "down_proj.weight"].T

    def experts(self, x, p):
        c = self.c
        score = sigmoid(x @ self.w[p + "gate.weight"].T)
        choice = score + self.w[p + "gate.e_score_correction_bias"]
        groups = choice.reshape(len(x), c["n_group"], -1)
        best = np.sort(groups, -1)[..., -2:].sum(-1)
        kept = np.argsort(-best, -1, kind="stable")[:, :c["topk_group"]]
        masked = np.full_like(groups, -np.inf)
        rows = np.arange(len(x))[:, None]
        masked[rows, kept] = groups[rows, kept]
        chosen = np.argsort(-masked.reshape(choice.shape), -1, kind="stable")[:, :c["num_experts_per_tok"]]
        weight = score[rows, chosen]
        weight = weight / (weight.sum(-1, keepdims=True) + 1e-20) * c["routed_scaling_factor"]
        out = self.dense(x, p + "shared_experts.")
        for e in range(c["n_routed_experts"]):
            token, slot = np.nonzero(chosen == e)
            out[token] += self.dense(x[token], f"{p}experts.{e}.") * weight[token, slot][:, None]
        return out

    def layer(self, x, index):
        p = f"model.layers.{index}."
        x = x + self.attention(norm(x, self.w[p + "input_layernorm.weight"]), p + "self_attn.")
        mlp = self.dense if index < self.c["first_k_dense_replace"] else self.experts
        return x + mlp(norm(x, self.w[p + "post_attention_layernorm.weight"]), p + "mlp.")

    def states(self, tokens):
        """After the last norm."""
        x = self.w["model.embed_tokens.weight"][tokens]
        for index in range(self.c["num_hidden_layers"]):
            x = self.layer(x, index)
        return norm(x, self.w["model.norm.weight"])

    def drafts(self, states, tokens):
        """states of tokens[:-1]; what comes after tokens[-1], and by how much each draft leads."""
        p = f"model.layers.{self.c['num_hidden_layers']}."
        states, following = list(states), list(tokens[1:])
        drafts, leads = [], []
        for _ in range(DRAFTS):
            embedding = self.w["model.embed_tokens.weight"][following]
            embedding[0] = 0
            joined = np.concatenate([norm(embedding, self.w[p + "enorm.weight"]),
                                     norm(np.array(states), self.w[p + "hnorm.weight"])], -1)
            x = self.layer(joined @ self.w[p + "eh_proj.weight"].T, self.c["num_hidden_layers"])
            out = norm(x[-1], self.w[p + "shared_head.norm.weight"])
            logits = self.w["lm_head.weight"] @ out
            order = np.argsort(-logits, kind="stable")
            drafts.append(int(order[0]))
            leads.append(float(logits[order[0]] - logits[order[1]]))
            states.append(out)
            following.append(drafts[-1])
        return drafts, leads


def main():
    model = Model()
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
