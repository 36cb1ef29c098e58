#!/usr/bin/env python3
"""Makes the reference logits that tests/model/logits_test.cc compares with.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 transformers==5.23.0
    venv/bin/python tests/goldens/make_goldens.py

Runs models/deepseek-tiny with transformers in FP32 with eager attention and writes, beside this file:
  deepseek-tiny.json   prompts (token ids), the positions whose logits are kept, greedy continuations
  deepseek-tiny.f32    the logits: little-endian float32 [kept positions of all prompts in order, vocab]

The prompts are dialogues of eval.jsonl in the model's own chat form, one after the other, cut at lengths around the
KV block (64), at the original context of YaRN (512) and well above it.
"""
import json
import pathlib
import sys

import numpy
import torch
import transformers

TRANSFORMERS = "5.23.0"
LENGTHS = [1, 2, 63, 64, 65, 200, 512, 700, 1500]
NEW_TOKENS = 24
HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE.parent.parent / "models" / "deepseek-tiny"


def prompts(tokenizer):
    """One list of token ids per length, each from another place of the evaluation set."""
    lines = [json.loads(line) for line in open(MODEL / "eval.jsonl", encoding="utf-8")]
    for number, length in enumerate(LENGTHS):
        ids = []
        for line in lines[number * 7:] + lines:
            text = tokenizer.apply_chat_template(
                line["messages"], tokenize=False, add_generation_prompt=True, thinking=line["thinking"])
            ids += tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(ids) >= length:
                break
            answer = tokenizer(line["reference"], add_special_tokens=False)["input_ids"]
            ids += answer
        yield ids[:length]


def kept_positions(length):
    wanted = {0, length // 3, 2 * length // 3, length - 1} | {p for p in (63, 64, 511, 512) if p < length}
    return sorted(wanted)


def main():
    if transformers.__version__ != TRANSFORMERS:
        sys.exit(f"transformers {TRANSFORMERS} is needed, this is {transformers.__version__}")
    torch.set_num_threads(2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        MODEL, dtype=torch.float32, attn_implementation="eager").eval()
    cases, rows = [], []
    with torch.no_grad():
        for ids in prompts(tokenizer):
            logits = model(torch.tensor([ids])).logits[0].numpy()
            positions = kept_positions(len(ids))
            rows.append(logits[positions])
            continuation, context = [], list(ids)
            for _ in range(NEW_TOKENS):
                # No cache: the continuation does not depend on a second code path of the reference.
                token = int(model(torch.tensor([context])).logits[0, -1].argmax())
                continuation.append(token)
                context.append(token)
            cases.append({"tokens": ids, "positions": positions, "continuation": continuation})
            print(len(ids), positions, repr(tokenizer.decode(continuation)[:60]), flush=True)
    numpy.concatenate(rows).astype("<f4").tofile(HERE / "deepseek-tiny.f32")
    with open(HERE / "deepseek-tiny.json", "w", encoding="ascii") as out:
        out.write('{"vocab": %d, "cases": [\n' % model.config.vocab_size)
        out.write(",\n".join(json.dumps(case) for case in cases))
        out.write("\n]}\n")


if __name__ == "__main__":
    main()
