"""The DeepSeek-V3 graph in NumPy and double precision, written for plainness: keys and values are expanded, nothing is
cached. For goldens of what transformers does not compute."""
import json

import numpy as np

LATENT_EPS = 1e-6  # of the norms of the latents, whatever rms_norm_eps says
BLOCK = 128


def e4m3_values():
    """The 128 values that are not negative, by their bits; the last is not a number."""
    bits = np.arange(128)
    exponent, fraction = bits >> 3, (bits & 7) / 8.0
    values = np.where(exponent == 0, fraction * 2.0**-6, (1 + fraction) * 2.0 ** (exponent - 7.0))
    values[127] = np.nan
    return values


E4M3 = e4m3_values()


def to_e4m3(x):
    """Bits of the nearest E4M3 value, on a tie the even one."""
    middles = (E4M3[:126] + E4M3[1:127]) / 2
    below = np.searchsorted(middles, np.abs(x))
    above = np.searchsorted(middles, np.abs(x), side="right")
    bits = np.where(below % 2 == 0, below, above).astype(np.uint8)
    return bits | np.where(np.signbit(x), np.uint8(128), np.uint8(0))


def from_e4m3(bits):
    return np.where(bits & 128, -1.0, 1.0) * E4M3[bits & 127]


def spread(scales, shape):
    """Each block's scale at each of the block's elements."""
    return np.repeat(np.repeat(scales, BLOCK, 0), BLOCK, 1)[: shape[0], : shape[1]]


class Weights:
    """Tensors of a folder's safetensors files by name, as float64; those in FP8 times their scales."""

    def __init__(self, folder):
        self.tensors = {}
        for path in sorted(folder.glob("*.safetensors")):
            data = path.read_bytes()
            size = int.from_bytes(data[:8], "little")
            for name, entry in json.loads(data[8:8 + size]).items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    self.tensors[name] = entry["dtype"], entry["shape"], data[8 + size + begin:8 + size + end]

    def is_fp8(self, name):
        return self.tensors[name][0] == "F8_E4M3"

    def __getitem__(self, name):
        dtype, shape, raw = self.tensors[name]
        if dtype == "F8_E4M3":
            values = from_e4m3(np.frombuffer(raw, np.uint8).reshape(shape)).astype(np.float32)
            return (values * spread(self[name + "_scale_inv"].astype(np.float32), shape)).astype(np.float64)
        if dtype == "F32":
            values = np.frombuffer(raw, "<f4")
        else:
            assert dtype == "BF16", (name, dtype)
            values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        return values.astype(np.float64).reshape(shape)


def norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Model:
    def __init__(self, folder):
        self.c = json.loads((folder / "config.json").read_text())
        self.w = Weights(folder)
        self.eps = self.c["rms_norm_eps"]
        yarn, dim, theta = self.c["rope_scaling"], self.c["qk_rope_head_dim"], self.c["rope_theta"]
        self.frequency = theta ** (-2.0 * np.arange(dim // 2) / dim)
        self.scale = 1 / np.sqrt(self.c["qk_nope_head_dim"] + dim)
        if yarn is None:
            return

        def pair(turns):
            return dim * np.log(yarn["original_max_position_embeddings"] / (turns * 2 * np.pi)) / (2 * np.log(theta))

        low, high = max(np.floor(pair(yarn["beta_fast"])), 0), min(np.ceil(pair(yarn["beta_slow"])), dim - 1)
        stretched = np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
        self.frequency = self.frequency / yarn["factor"] * stretched + self.frequency * (1 - stretched)
        self.scale *= (0.1 * yarn["mscale_all_dim"] * np.log(yarn["factor"]) + 1) ** 2

    def linear(self, x, name):
        return x @ self.w[name].T

    def rotate(self, x):
        """[tokens, heads, dim], pairs (2i, 2i + 1)."""
        angle = np.arange(len(x))[:, None] * self.frequency
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        a, b = x[..., 0::2], x[..., 1::2]
        return np.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape)

    def attention(self, x, p):
        c, w, t = self.c, self.w, len(x)
        heads, nope, latent = c["num_attention_heads"], c["qk_nope_head_dim"], c["kv_lora_rank"]
        q = norm(self.linear(x, p + "q_a_proj.weight"), w[p + "q_a_layernorm.weight"], LATENT_EPS)
        q = self.linear(q, p + "q_b_proj.weight").reshape(t, heads, -1)
        kv_a = self.linear(x, p + "kv_a_proj_with_mqa.weight")
        # Not linear(): kv_b is never a product on an activation of its own where queries are absorbed.
        kv = norm(kv_a[:, :latent], w[p + "kv_a_layernorm.weight"], LATENT_EPS) @ w[p + "kv_b_proj.weight"].T
        kv = kv.reshape(t, heads, -1)
        key = np.concatenate([kv[..., :nope], np.repeat(self.rotate(kv_a[:, None, latent:]), heads, 1)], -1)
        query = np.concatenate([q[..., :nope], self.rotate(q[..., nope:])], -1)
        scores = np.einsum("qhd,khd->hqk", query, key) * self.scale
        scores = np.where(np.tril(np.ones((t, t), bool)), scores, -np.inf)
        p_ = np.exp(scores - scores.max(-1, keepdims=True))
        p_ /= p_.sum(-1, keepdims=True)
        return self.linear(np.einsum("hqk,khd->qhd", p_, kv[..., nope:]).reshape(t, -1), p + "o_proj.weight")

    def dense(self, x, p):
        gate = self.linear(x, p + "gate_proj.weight")
        return self.linear(gate * sigmoid(gate) * self.linear(x, p + "up_proj.weight"), p + "down_proj.weight")

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
        x = x + self.attention(norm(x, self.w[p + "input_layernorm.weight"], self.eps), p + "self_attn.")
        mlp = self.dense if index < self.c["first_k_dense_replace"] else self.experts
        return x + mlp(norm(x, self.w[p + "post_attention_layernorm.weight"], self.eps), p + "mlp.")

    def states(self, tokens):
        """After the last norm."""
        x = self.w["model.embed_tokens.weight"][tokens]
        for index in range(self.c["num_hidden_layers"]):
            x = self.layer(x, index)
        return norm(x, self.w["model.norm.weight"], self.eps)
