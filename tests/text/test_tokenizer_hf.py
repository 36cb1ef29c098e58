"""Our tokenizer gives the ids that Hugging Face's `tokenizers` gives, and our chat encoder the text that the model's
own Jinja template gives.

The program under test is tokenize_lines from any build; DSM_BUILD names the build folder (default: the newest of
build/release and build/dev that has it).
"""

import json
import os
import pathlib
import random
import subprocess

import jinja2
import pytest
import tokenizers

pytestmark = pytest.mark.integration

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "deepseek-tiny"
STRINGS = 10_000


def program():
    folders = [os.environ["DSM_BUILD"]] if "DSM_BUILD" in os.environ else ["build/release", "build/dev"]
    found = [p for p in (ROOT / f / "tokenize_lines" for f in folders) if p.exists()]
    if not found:
        pytest.fail("tokenize_lines is not built (looked in " + ", ".join(folders) + "); run `make build`")
    return max(found, key=lambda p: p.stat().st_mtime)


def ask(lines, tokenizer_json=MODEL / "tokenizer.json"):
    """One answer per line, in order."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run([program(), tokenizer_json], input=text, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in done.stdout.split("\n") if line]
    assert len(answers) == len(lines)
    return answers


# Ranges with something in common; the last item draws from every plane.
ALPHABETS = [
    [(0x20, 0x7E)],
    [(0x30, 0x39), (0x660, 0x669), (0xFF10, 0xFF19), (0xB2, 0xB3), (0x2160, 0x216F), (0x3021, 0x3029)],
    [(0x4E00, 0x9FFF)],
    [(0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3000, 0x303F)],
    [(0xAC00, 0xD7A3), (0x1100, 0x11FF)],
    [(0xC0, 0x24F), (0x300, 0x36F)],
    [(0x370, 0x3FF), (0x400, 0x52F)],
    [(0x590, 0x6FF), (0x8A0, 0x8FF)],
    [(0x900, 0xDFF)],
    [(0xE00, 0xFFF)],
    [(0x2000, 0x206F), (0xA0, 0xA0), (0x85, 0x85), (0x1680, 0x1680), (0x180E, 0x180E), (0x3000, 0x3000), (0xFEFF, 0xFEFF)],
    [(0x09, 0x0D), (0x20, 0x20)],
    [(0x00, 0x1F), (0x7F, 0x9F)],
    [(0x20A0, 0x2BFF)],
    [(0x1F300, 0x1FAFF), (0x200D, 0x200D), (0xFE0F, 0xFE0F), (0x1F1E6, 0x1F1FF)],
    [(0x20000, 0x323AF)],
    [(0xE000, 0xF8FF), (0xF0000, 0xF0FFF), (0x100000, 0x10FFFD)],
    [(0x0, 0xD7FF), (0xE000, 0xFFFF)],
    [(p << 16, (p << 16) + 0xFFFF) for p in range(1, 17)],
]
WORDS = ["the", " capital", " of", "France", "计算", "等于多少", "'s", "'LL", "don't", "http://x.y/z?q=1", "def f(x):", "    ", "\r\n",
         "\n\n", "\t", "...", "——", "１２３", "3.14159", "e=mc²", "🏳️‍🌈", "naïve", "né", "<|x|>", "｜", "▁", "\\n", "{\"a\":1}"]


def character(rng, alphabet):
    first, last = rng.choice(alphabet)
    return chr(rng.randint(first, last))


def fuzzed_string(rng, specials):
    """A few runs, each from one alphabet, so that borders between scripts and long runs both come up."""
    out = []
    for _ in range(rng.randint(1, 8)):
        kind = rng.random()
        if kind < 0.15:
            special = rng.choice(specials)
            # also a broken one
            out.append(special if rng.random() < 0.7 else special[: rng.randint(1, len(special))])
        elif kind < 0.4:
            out.append(rng.choice(WORDS))
        else:
            alphabet = rng.choice(ALPHABETS)
            out.extend(character(rng, alphabet) for _ in range(rng.choice([1, 1, 2, 3, 8, 20])))
    return "".join(out)


def fuzzed(seed, count=STRINGS):
    rng = random.Random(seed)
    specials = [t["content"] for t in json.loads((MODEL / "tokenizer.json").read_text())["added_tokens"]]
    return [""] + [fuzzed_string(rng, specials) for _ in range(count - 1)]


@pytest.fixture(scope="module")
def reference():
    return tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))


@pytest.mark.parametrize("special", [True, False], ids=["special tokens are tokens", "special tokens are text"])
def test_ids_equal_those_of_hugging_face(reference, special):
    strings = fuzzed(seed=1)
    reference.encode_special_tokens = not special
    expected = [reference.encode(s, add_special_tokens=False).ids for s in strings]
    answers = ask([{"text": s, "special": special} for s in strings])
    wrong = [(s, e, a["ids"]) for s, e, a in zip(strings, expected, answers) if e != a["ids"]]
    assert not wrong, f"{len(wrong)} of {len(strings)} differ, the first: {wrong[0]!r}"


def test_every_character_alone_equals_hugging_face(reference):
    """One line per 64 characters, separated by letters, so that each meets the rules on its own."""
    points = [u for u in range(0x110000) if not 0xD800 <= u < 0xE000]
    strings = ["x".join(map(chr, points[i : i + 64])) for i in range(0, len(points), 64)]
    expected = [reference.encode(s, add_special_tokens=False).ids for s in strings]
    answers = ask([{"text": s} for s in strings])
    wrong = [s for s, e, a in zip(strings, expected, answers) if e != a["ids"]]
    assert not wrong, f"{len(wrong)} of {len(strings)} differ, the first: {wrong[0]!r}"


def test_decoding_gives_the_text_back():
    strings = fuzzed(seed=2, count=2000)
    ids = [a["ids"] for a in ask([{"text": s} for s in strings])]
    back = [a["text"] for a in ask([{"ids": i} for i in ids])]
    assert back == strings


def test_decoding_any_ids_equals_hugging_face(reference):
    rng = random.Random(3)
    sequences = [[rng.randrange(reference.get_vocab_size()) for _ in range(rng.randint(0, 12))] for _ in range(2000)]
    expected = [reference.decode(s, skip_special_tokens=False) for s in sequences]
    assert [a["text"] for a in ask([{"ids": s} for s in sequences])] == expected


# The pre-tokenizers of other members of the family, on the same vocabulary: the rules are what is compared.
def split(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def byte_level(use_regex=False, prefix=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": use_regex}


OTHERS = {
    "four rules and digits one by one": [
        split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"),
        {"type": "Digits", "individual_digits": True}, byte_level()],
    "runs of digits and spaces at line ends": [
        split("[\r\n]"), split("\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿ]+"), split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"), split("\\s+$"),
        split("[一-龥ࠀ-一가-퟿]+"), {"type": "Digits", "individual_digits": False}, byte_level()],
    "one rule with contractions": [
        split("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
              "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"), byte_level()],
    "byte level's own rule": [byte_level(use_regex=True)],
    "byte level with a space in front": [split("\\p{N}"), byte_level(use_regex=True, prefix=True)],
}


@pytest.mark.parametrize("rules", OTHERS.values(), ids=OTHERS.keys())
def test_the_rules_of_other_models_give_equal_ids(tmp_path, rules):
    file = json.loads((MODEL / "tokenizer.json").read_text())
    file["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": rules}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(file))
    other = tokenizers.Tokenizer.from_file(str(path))
    strings = fuzzed(seed=4, count=2000)
    expected = [other.encode(s, add_special_tokens=False).ids for s in strings]
    answers = ask([{"text": s} for s in strings], path)
    wrong = [(s, e, a["ids"]) for s, e, a in zip(strings, expected, answers) if e != a["ids"]]
    assert not wrong, f"{len(wrong)} of {len(strings)} differ, the first: {wrong[0]!r}"


def conversations(rng, count):
    for _ in range(count):
        messages = [{"role": "system", "content": rng.choice(WORDS)}] if rng.random() < 0.5 else []
        for _ in range(rng.randint(0, 3)):
            messages += [{"role": "user", "content": " ".join(rng.choices(WORDS, k=3))},
                         {"role": "assistant", "content": rng.choice(WORDS)}]
        messages.append({"role": "user", "content": "".join(character(rng, rng.choice(ALPHABETS)) for _ in range(9))})
        yield messages


def test_the_chat_encoder_equals_the_models_template(reference):
    """Text equal to Jinja's, ids equal to those of that text (no message here spells a special token)."""
    config = json.loads((MODEL / "tokenizer_config.json").read_text())
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # as transformers sets it
    template = environment.from_string(config["chat_template"])
    rng = random.Random(5)
    asked, expected = [], []
    for messages in conversations(rng, 500):
        thinking, generate = rng.random() < 0.5, rng.random() < 0.8
        asked.append({"messages": messages, "thinking": thinking, "generate": generate})
        expected.append(template.render(
            messages=messages, thinking=thinking, add_generation_prompt=generate,
            bos_token=config["bos_token"], eos_token=config["eos_token"]))
    reference.encode_special_tokens = False
    for question, text, answer in zip(asked, expected, ask(asked)):
        assert answer["text"] == text, question
        assert answer["ids"] == reference.encode(text, add_special_tokens=False).ids, question
