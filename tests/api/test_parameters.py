"""What a request can ask for beside its text: choices, seeds, echoes, bounds; and how it is refused."""

import openai
import pytest
from conftest import NAME

ASK = [{"role": "user", "content": "Capital of France?"}]
COUNT = [{"role": "user", "content": "Count from 57 to 68."}]
COUNTED = "57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68"
PROMPT = "<｜begin▁of▁sentence｜><｜User｜>Count from 57 to 68.<｜Assistant｜></think>"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def chat(client, messages, **options):
    return client.chat.completions.create(model=NAME, messages=messages, **options)


def texts(answer):
    assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
    return [choice.message.content for choice in answer.choices]


def test_choices_of_a_greedy_answer_are_all_equal(client):
    answer = chat(client, COUNT, n=4, temperature=0)
    assert texts(answer) == [COUNTED] * 4
    alone = chat(client, COUNT, temperature=0).usage
    assert answer.usage.prompt_tokens == alone.prompt_tokens
    assert answer.usage.completion_tokens == 4 * alone.completion_tokens


def test_choices_of_a_random_answer_differ_and_repeat_with_the_seed(client):
    options = {"temperature": 2, "max_tokens": 16, "seed": 3}
    several = texts(chat(client, ASK, n=6, **options))
    assert len(set(several)) > 1
    assert texts(chat(client, ASK, n=6, **options)) == several
    assert texts(chat(client, ASK, n=2, **options)) == several[:2]
    assert texts(chat(client, ASK, **options)) == several[:1]
    assert texts(chat(client, ASK, n=6, **{**options, "seed": 4})) != several


def test_streamed_choices_are_told_apart_by_their_index(client):
    options = {"temperature": 2, "max_tokens": 12, "seed": 9, "n": 3}
    pieces = {}
    finished = {}
    for chunk in chat(client, ASK, stream=True, **options):
        for choice in chunk.choices:
            pieces[choice.index] = pieces.get(choice.index, "") + (choice.delta.content or "")
            finished[choice.index] = choice.finish_reason or finished.get(choice.index)
    whole = chat(client, ASK, **options)
    assert [pieces[i] for i in range(3)] == texts(whole)
    assert [finished[i] for i in range(3)] == [choice.finish_reason for choice in whole.choices]


def test_each_prompt_has_its_choices_one_after_the_other(client):
    answer = client.completions.create(model=NAME, prompt=[PROMPT, "A"], n=2, max_tokens=100, temperature=0)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    written = [choice.text for choice in answer.choices]
    assert written[:2] == [COUNTED] * 2
    assert written[2] == written[3]


def test_an_echo_comes_before_the_answer(client):
    answer = client.completions.create(model=NAME, prompt=PROMPT, max_tokens=100, echo=True)
    assert answer.choices[0].text == PROMPT + COUNTED
    pieces = client.completions.create(model=NAME, prompt=PROMPT, max_tokens=100, echo=True, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == PROMPT + COUNTED


def test_a_suffix_makes_a_prompt_with_a_gap(client):
    plain = client.completions.create(model=NAME, prompt="a = ", max_tokens=1)
    gap = client.completions.create(model=NAME, prompt="a = ", suffix="\nprint(a)", max_tokens=1)
    assert gap.usage.prompt_tokens > plain.usage.prompt_tokens + 3  # the markers and the suffix


def test_an_end_that_is_ignored_is_not_the_end(client):
    answer = chat(client, ASK, max_tokens=60, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 60
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    "options, param",
    [
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"extra_body": {"repetition_penalty": 0}}, "repetition_penalty"),
        ({"logit_bias": {"5": 200}}, "logit_bias"),
        ({"logit_bias": {"1536": 1}}, "logit_bias"),
        ({"logit_bias": {"five": 1}}, "logit_bias"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"extra_body": {"prompt_logprobs": 1}, "stream": True}, "prompt_logprobs"),
        ({"max_tokens": 2, "extra_body": {"min_tokens": 3}}, "min_tokens"),
        ({"extra_body": {"best_of": 2}}, "best_of"),
        ({"extra_body": {"priority": "high"}}, "priority"),
        ({"extra_body": {"max_time_ms": 0}}, "max_time_ms"),
        ({"extra_headers": {"X-Request-Timeout-Ms": "soon"}}, "X-Request-Timeout-Ms"),
        ({"extra_body": {"stop_token_ids": [1536]}}, "stop_token_ids"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tools": [TOOL]}, "tools"),  # this model's template has none
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format.json_schema.schema"),
        ({"extra_body": {"structured_outputs": {"regex": "a", "choice": ["a"]}}}, "structured_outputs"),
        ({"extra_body": {"guided_regex": "a", "ignore_eos": True}}, "ignore_eos"),
        ({"extra_body": {"bad_words": ["x"]}}, "bad_words"),
        ({"extra_body": {"continue_final_message": True}}, "continue_final_message"),
        ({"messages": [*ASK, {"role": "tool", "tool_call_id": "a", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "assistant", "content": "x", "prefix": True}, *ASK]}, "messages"),
    ],
)
def test_a_bad_parameter_is_named(client, options, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{"model": NAME, "messages": ASK, **options})
    assert refused.value.body["param"] == param
    assert refused.value.body["type"] == "invalid_request_error"
    assert refused.value.body["message"]


@pytest.mark.parametrize(
    "options, param",
    [
        ({"logprobs": 21}, "logprobs"),
        ({"prompt": ["a", "b"], "suffix": "c"}, "suffix"),
        ({"suffix": "c", "echo": True}, "suffix"),
        ({"prompt": ["a"] * 128, "n": 3}, "n"),
        ({"extra_body": {"tools": [TOOL]}}, "tools"),
    ],
)
def test_a_bad_parameter_of_a_completion_is_named(client, options, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**{"model": NAME, "prompt": "a", **options})
    assert refused.value.body["param"] == param


def test_values_that_ask_for_nothing_change_nothing(client):
    answer = chat(
        client,
        COUNT,
        n=1,
        presence_penalty=0,
        frequency_penalty=0,
        logit_bias={},
        logprobs=False,
        response_format={"type": "text"},
        extra_body={
            "repetition_penalty": 1,
            "min_tokens": 0,
            "best_of": 1,
            "priority": 0,
            "structured_outputs": None,
            "something_new": {"x": 1},
        },
    )
    assert texts(answer) == [COUNTED]
