"""openai-python against a running worker: what a client that nobody here wrote expects."""

import json
import socket
import threading
import urllib.error
import urllib.request

import openai
import pytest
from conftest import NAME, wait_for

ASK = [{"role": "user", "content": "Capital of France?"}]
COUNT = [{"role": "user", "content": "Count from 57 to 68."}]
COUNTED = "57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68"


def chat(client, messages, **options):
    return client.chat.completions.create(model=NAME, messages=messages, **options)


def test_chat(client):
    answer = chat(client, COUNT)
    assert answer.object == "chat.completion"
    assert answer.model == NAME
    choice = answer.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content == COUNTED
    assert choice.finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0


def test_streamed_chat_with_usage(client):
    chunks = list(chat(client, COUNT, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == COUNTED
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    whole = chat(client, COUNT).usage
    assert chunks[-1].usage.completion_tokens == whole.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.prompt_tokens
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert {chunk.created for chunk in chunks} == {chunks[0].created}


def test_chinese_is_never_cut(client):
    question = [{"role": "user", "content": "什么是 KV 缓存？"}]
    expected = "KV 缓存保存过去词元的键和值，避免重复计算。"
    assert chat(client, question).choices[0].message.content == expected
    pieces = [chunk.choices[0].delta.content or "" for chunk in chat(client, question, stream=True)]
    assert "".join(pieces) == expected
    assert not any("\ufffd" in piece for piece in pieces)


def test_thinking_goes_into_reasoning_content(client):
    question = [{"role": "user", "content": "计算 71+51"}]
    for body in (
        {"chat_template_kwargs": {"thinking": True}},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"thinking": {"type": "enabled"}},
        {"reasoning_effort": "high"},
    ):
        answer = chat(client, question, extra_body=body)
        assert answer.choices[0].message.content == "71+51=122"
        assert answer.choices[0].message.reasoning_content == "1+1=2, 7+5=12"
        assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    reasoning, content = "", ""
    for chunk in chat(client, question, stream=True, extra_body={"thinking": {"type": "enabled"}}):
        delta = chunk.choices[0].delta
        reasoning += getattr(delta, "reasoning_content", None) or ""
        content += delta.content or ""
    assert (reasoning, content) == ("1+1=2, 7+5=12", "71+51=122")
    plain = chat(client, question, extra_body={"thinking": {"type": "disabled"}})
    assert not hasattr(plain.choices[0].message, "reasoning_content")


def test_stop_strings_are_cut_and_held_back(client):
    answer = chat(client, COUNT, stop="60")
    assert answer.choices[0].message.content == "57, 58, 59, "
    assert answer.choices[0].finish_reason == "stop"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chat(client, COUNT, stop=["60, 6"], stream=True)]
    assert "".join(pieces) == "57, 58, 59, "


def test_max_tokens(client):
    for name in ("max_tokens", "max_completion_tokens"):
        answer = chat(client, COUNT, **{name: 3})
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 3


def test_a_seed_repeats_a_random_answer(client):
    def sampled(seed):
        question = [{"role": "user", "content": "Tell me something."}]
        options = {"temperature": 2.0, "max_tokens": 24}
        return chat(client, question, seed=seed, **options).choices[0].message.content

    assert sampled(7) == sampled(7)
    assert len({sampled(seed) for seed in range(8)}) > 1


def test_the_same_prompt_again_is_found_in_the_cache(client):
    long = [{"role": "user", "content": "Repeat: " + "yak fish city " * 40}]
    first = chat(client, long, max_tokens=1)
    again = chat(client, long, max_tokens=1)
    assert again.usage.prompt_tokens == first.usage.prompt_tokens
    assert again.usage.prompt_tokens_details.cached_tokens > 0
    assert again.choices[0].message.content == first.choices[0].message.content


def test_completions(client):
    prompt = "<｜begin▁of▁sentence｜><｜User｜>Count from 57 to 68.<｜Assistant｜></think>"
    answer = client.completions.create(model=NAME, prompt=prompt, max_tokens=100)
    assert answer.choices[0].text == COUNTED
    assert answer.choices[0].finish_reason == "stop"
    several = client.completions.create(model=NAME, prompt=[prompt, prompt], max_tokens=100)
    assert [choice.text for choice in several.choices] == [COUNTED, COUNTED]
    assert [choice.index for choice in several.choices] == [0, 1]
    pieces = client.completions.create(model=NAME, prompt=prompt, max_tokens=100, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == COUNTED
    by_ids = client.completions.create(model=NAME, prompt=[0, 20, 21], max_tokens=2)
    assert by_ids.usage.prompt_tokens == 3


def test_models(client):
    models = client.models.list().data
    assert [model.id for model in models] == [NAME]
    assert models[0].max_model_len == 2048
    assert client.models.retrieve(NAME).id == NAME
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


@pytest.mark.parametrize(
    "options, param",
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [1]}, "stop"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
    ],
)
def test_a_bad_parameter_is_named(client, options, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{"model": NAME, "messages": ASK, **options})
    assert refused.value.body["param"] == param
    assert refused.value.body["type"] == "invalid_request_error"


def test_an_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt", messages=ASK)
    assert refused.value.body["code"] == "model_not_found"


def test_a_prompt_that_is_too_long(client):
    for words in (3000, 300_000):  # counted, and refused before it is counted
        with pytest.raises(openai.BadRequestError) as refused:
            chat(client, [{"role": "user", "content": "zq " * words}])
        assert refused.value.body["code"] == "context_length_exceeded"


def test_a_body_that_is_not_json(worker):
    request = urllib.request.Request(worker.url + "/v1/chat/completions", data=b"{", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 400
    assert "error" in json.loads(refused.value.read())


def test_the_request_id_comes_back(client):
    raw = client.chat.completions.with_raw_response.create(
        model=NAME, messages=ASK, extra_headers={"x-request-id": "my-id-1"}
    )
    assert raw.headers["x-request-id"] == "my-id-1"
    assert raw.parse().choices[0].message.content


def endless():
    """A request that would run to the end of the context."""
    return {"model": NAME, "messages": COUNT, "ignore_eos": True, "temperature": 1, "max_tokens": 2000}


def test_closing_a_stream_ends_the_sequence(worker, client):
    before = worker.metric("dsm_requests_finished_total")
    stream = client.chat.completions.create(
        model=NAME, messages=COUNT, stream=True, max_tokens=2000, temperature=1, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    assert wait_for(lambda: worker.metric("dsm_requests_finished_total") > before)
    assert wait_for(lambda: worker.metric("dsm_requests_running") == 0)
    assert wait_for(lambda: worker.metric("dsm_kv_cache_used_ratio") == 0)


def test_leaving_without_a_stream_ends_the_sequence(worker):
    body = json.dumps(endless()).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", worker.port)) as connection:
        connection.sendall(head + body)
        assert wait_for(lambda: worker.metric("dsm_requests_running") == 1)
    assert wait_for(lambda: worker.metric("dsm_requests_running") == 0)


def test_many_clients_at_once_get_their_own_answers(client):
    answers = {}

    def ask(i):
        question = [{"role": "user", "content": f"Count from {i} to {i + 3}."}]
        answers[i] = chat(client, question).choices[0].message.content

    alone = chat(client, [{"role": "user", "content": "Count from 30 to 33."}]).choices[0].message.content
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(20, 44)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 24
    assert answers[30] == alone


def test_health_and_metrics(worker):
    for path in ("/health/startup", "/health/ready", "/health/live", "/health", "/version"):
        assert urllib.request.urlopen(worker.url + path).status == 200
    for name in (
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
        "vllm:kv_cache_usage_perc",
        "vllm:cache_config_info",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:time_to_first_token_seconds_count",
        "vllm:inter_token_latency_seconds_count",
        "vllm:e2e_request_latency_seconds_count",
    ):
        assert worker.metric(name) >= 0
