"""Penalties, biases, log probabilities, least lengths and time limits: what the engine does with them, seen
by a client."""

import json
import math

import openai
import pytest
from conftest import MODEL, NAME, wait_for

COUNT = [{"role": "user", "content": "Count from 57 to 68."}]
COUNTED = "57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68"
PROMPT = "<｜begin▁of▁sentence｜><｜User｜>Count from 57 to 68.<｜Assistant｜></think>"


@pytest.fixture(scope="session")
def vocabulary():
    return json.loads((MODEL / "tokenizer.json").read_text())["model"]["vocab"]


def chat(client, messages=None, **options):
    return client.chat.completions.create(**{"model": NAME, "messages": messages or COUNT, "temperature": 0, **options})


def text(answer):
    return answer.choices[0].message.content


def test_penalties_keep_the_model_from_saying_the_same_again(client):
    def repeats(answer):
        return text(answer).count(",")

    plain = chat(client, max_tokens=48)
    for options in (
        {"frequency_penalty": 2},
        {"presence_penalty": 2, "frequency_penalty": 2},
    ):
        penalised = chat(client, max_tokens=48, **options)
        assert repeats(penalised) < repeats(plain), options
        assert text(chat(client, max_tokens=48, **options)) == text(penalised), options


def test_a_repetition_penalty_below_one_asks_for_what_was_said(client):
    # Above one it cannot move a model that is this sure; below one it lifts every token of prompt and answer.
    answer = chat(client, max_tokens=48, extra_body={"repetition_penalty": 0.1})
    assert text(answer) != text(chat(client, max_tokens=48))
    assert text(chat(client, max_tokens=48, extra_body={"repetition_penalty": 0.1})) == text(answer)


def test_a_negative_penalty_asks_for_the_same_again(client):
    answer = chat(client, frequency_penalty=-2, presence_penalty=-2, max_tokens=40)
    assert text(answer) != COUNTED


def test_a_bias_bans_and_forces_tokens(client, vocabulary):
    commas = {str(number): -100 for token, number in vocabulary.items() if "," in token}
    assert "," not in text(chat(client, logit_bias=commas, max_tokens=40))
    forced = chat(client, logit_bias={str(vocabulary["7"]): 100}, max_tokens=5)
    assert text(forced) == "77777"


def check_positions(positions, top):
    for position in positions:
        assert position.logprob <= 0
        assert bytes(position.bytes).decode("utf-8", "replace") == position.token
        likeliest = [one.logprob for one in position.top_logprobs]
        assert len(likeliest) == top
        assert likeliest == sorted(likeliest, reverse=True)
        assert sum(math.exp(logprob) for logprob in likeliest) <= 1 + 1e-4


def test_log_probabilities_of_a_chat(client):
    answer = chat(client, logprobs=True, top_logprobs=5)
    positions = answer.choices[0].logprobs.content
    assert len(positions) == answer.usage.completion_tokens
    assert "".join(position.token for position in positions) == text(answer) == COUNTED
    check_positions(positions, 5)
    for position in positions:  # greedy: the likeliest was taken
        assert position.token == position.top_logprobs[0].token
        assert position.logprob == position.top_logprobs[0].logprob
    bare = chat(client, logprobs=True).choices[0].logprobs.content
    assert [position.logprob for position in bare] == [position.logprob for position in positions]
    assert all(position.top_logprobs == [] for position in bare)
    assert chat(client).choices[0].logprobs is None


def test_log_probabilities_are_the_models_own(client):
    """They do not depend on temperature: where a hot run takes the same tokens, it tells the same numbers."""
    cold = chat(client, logprobs=True, max_tokens=1).choices[0].logprobs.content[0]
    for seed in range(20):
        hot = chat(client, logprobs=True, top_logprobs=1, max_tokens=1, temperature=2, seed=seed)
        first = hot.choices[0].logprobs.content[0]
        assert first.top_logprobs[0].logprob == cold.logprob
        assert first.logprob <= cold.logprob


def test_streamed_log_probabilities_are_the_same_and_come_with_their_text(client):
    whole = chat(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    streamed = []
    written = ""
    for chunk in chat(client, logprobs=True, top_logprobs=2, stream=True, stop=["68, 6"]):
        choice = chunk.choices[0]
        written += choice.delta.content or ""
        if choice.logprobs:
            streamed += choice.logprobs.content
        assert len("".join(position.token for position in streamed)) <= len(written)
    assert written == COUNTED
    assert streamed == whole


def test_tokens_that_a_stop_string_cuts_are_not_told(client):
    answer = chat(client, logprobs=True, stop=" 60")
    told = "".join(position.token for position in answer.choices[0].logprobs.content)
    assert text(answer) == "57, 58, 59,"
    assert told == "57, 58, 59,"


def test_log_probabilities_of_a_completion(client):
    answer = client.completions.create(model=NAME, prompt=PROMPT, max_tokens=100, logprobs=3, temperature=0)
    told = answer.choices[0].logprobs
    assert "".join(told.tokens) == answer.choices[0].text == COUNTED
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset)
    assert told.text_offset[0] == 0
    assert told.text_offset[1] == len(told.tokens[0])
    for token, logprob, top in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
        assert top[token] == logprob == max(top.values())
        assert len(top) == 3


def test_an_echo_scores_the_prompt(client):
    answer = client.completions.create(
        model=NAME, prompt=PROMPT + COUNTED, max_tokens=1, logprobs=0, echo=True, temperature=0
    )
    scored = answer.choices[0].logprobs
    assert scored.token_logprobs[0] is None
    assert all(logprob <= 0 for logprob in scored.token_logprobs[1:])
    written = client.completions.create(model=NAME, prompt=PROMPT, max_tokens=100, logprobs=0, temperature=0)
    generated = written.choices[0].logprobs.token_logprobs
    # The prompt's last tokens are the answer of the other request: same model, same numbers. What comes after them is
    # the end of the text, which is not handed out.
    assert scored.token_logprobs[-len(generated) :] == pytest.approx(generated, abs=1e-5)


def test_the_prompts_log_probabilities(client):
    answer = chat(client, max_tokens=1, extra_body={"prompt_logprobs": 2})
    positions = answer.choices[0].model_extra.get("prompt_logprobs") or answer.model_extra["prompt_logprobs"]
    assert len(positions) == answer.usage.prompt_tokens
    assert positions[0] is None
    for position in positions[1:]:
        assert 2 <= len(position) <= 3  # the two likeliest, and the prompt's own


def test_the_least_length_holds_off_the_end(client):
    natural = chat(client).usage.completion_tokens
    longer = chat(client, max_tokens=200, extra_body={"min_tokens": natural + 20})
    assert longer.usage.completion_tokens >= natural + 20
    assert chat(client, max_tokens=200, extra_body={"min_tokens": 2}).usage.completion_tokens == natural


def test_a_stop_token_is_not_handed_out(client, vocabulary):
    answer = chat(client, extra_body={"stop_token_ids": [vocabulary[","]]})
    assert text(answer) == "57"
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "how", [{"extra_body": {"max_time_ms": 1}}, {"extra_headers": {"X-Request-Timeout-Ms": "1"}}]
)
def test_a_request_whose_time_is_over_ends_with_408(worker, client, how):
    extra = {"ignore_eos": True, **how.get("extra_body", {})}
    with pytest.raises(openai.APIStatusError) as late:
        chat(client, max_tokens=2000, extra_body=extra, extra_headers=how.get("extra_headers"))
    assert late.value.status_code == 408
    assert late.value.body["code"] == "deadline_exceeded"
    assert wait_for(lambda: worker.metric("dsm_requests_running") == 0)


def test_a_request_with_time_enough_is_answered(client):
    answer = chat(client, extra_body={"max_time_ms": 600_000}, extra_headers={"X-Request-Timeout-Ms": "600000"})
    assert text(answer) == COUNTED
