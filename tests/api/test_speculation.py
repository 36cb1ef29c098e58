"""Guessing ahead changes the time that an answer takes, never the answer."""

import json
import shutil

import pytest
from conftest import MODEL

QUESTIONS = ["What is 17+25?", "What is the capital of France?", "Sort 9, 3, 27, 4.", "Count from 1 to 9.", "把 apple 翻译成中文"]


def answers(worker):
    client = worker.client()
    made = []
    for number, question in enumerate(QUESTIONS):
        for sampling in ({"temperature": 0}, {"temperature": 1.0, "seed": number},
                         {"temperature": 0.8, "seed": number, "presence_penalty": 0.5, "frequency_penalty": 0.5}):
            for thinking in (False, True):
                answer = client.chat.completions.create(
                    model="deepseek-tiny", max_tokens=60, logprobs=True, top_logprobs=3,
                    messages=[{"role": "user", "content": question}],
                    extra_body={"chat_template_kwargs": {"thinking": thinking}}, **sampling)
                made.append(answer.choices[0].model_dump())
    return made


@pytest.fixture(scope="module")
def without_guesses(worker):
    return answers(worker)


@pytest.mark.parametrize("arguments", [
    ["--speculative-method", "ngram", "--speculative-tokens", "4"],
    ["--speculative-method", "mtp", "--speculative-tokens", "1"],
    ["--speculative-method", "mtp", "--speculative-tokens", "3", "--tensor-parallel", "2"],
], ids=["ngram", "mtp", "mtp, two ranks"])
def test_answers_and_their_log_probabilities_are_the_same(start_worker, without_guesses, arguments):
    worker = start_worker(*arguments).ready()
    assert answers(worker) == without_guesses
    drafted = worker.metric("vllm:spec_decode_num_draft_tokens_total")
    accepted = worker.metric("vllm:spec_decode_num_accepted_tokens_total")
    assert 0 < accepted <= drafted


def test_a_model_without_a_prediction_layer_says_so(start_worker, tmp_path):
    copy = tmp_path / "plain"
    shutil.copytree(MODEL, copy)
    config = json.loads((copy / "config.json").read_text())
    config["num_nextn_predict_layers"] = 0
    (copy / "config.json").write_text(json.dumps(config))
    worker = start_worker("--speculative-method", "mtp", "--speculative-tokens", "1", model=copy)
    worker.wait_for_log("no prediction layer")
    assert worker.process.wait(timeout=30) == 1
