"""The peer of bench/serving.py: the same prompts, weights and numbers of tokens through transformers' `generate` in FP32,
in batches as large as there were clients. No server and no client share the cores with it, all answers of a batch begin
at once and end at once: what it is spared, it is spared.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 transformers==5.23.0
    venv/bin/python bench/transformers_peer.py --model models/deepseek-tiny
"""

import argparse
import json
import resource
import time

import torch
from serving import PROMPT
from transformers import AutoModelForCausalLM, AutoTokenizer


def prompts(tokenizer, first: int, count: int) -> dict:
    messages = [[{"role": "user", "content": PROMPT.format(a=n % 997, b=n // 997 + 3)}]
                for n in range(first, first + count)]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True,
                                         padding=True)


def timed(model, batch: dict, tokens: int) -> float:
    begin = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(**batch, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens)
    if out.shape[1] != batch["input_ids"].shape[1] + tokens:
        raise RuntimeError("the peer did not make as many tokens as were asked for")
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    timed(model, prompts(tokenizer, 900_000, 1), 8)  # warm-up
    first = 0
    for concurrency in arguments.concurrency:
        total, ttft = 0.0, []
        for _ in range(arguments.repeats):
            batch = prompts(tokenizer, first, concurrency)
            first += concurrency
            ttft.append(timed(model, batch, 1))
            total += timed(model, batch, arguments.tokens)
        print(json.dumps({
            "peer": "transformers", "concurrency": concurrency, "requests": concurrency * arguments.repeats,
            "output_tokens_per_s": round(concurrency * arguments.tokens * arguments.repeats / total, 1),
            "ttft_ms_p50": round(1e3 * sorted(ttft)[len(ttft) // 2], 2),
            "rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)}), flush=True)


if __name__ == "__main__":
    main()
