"""Anthropic's own client against /v1/messages."""

import anthropic
import pytest

# The client has no parameter for it any more, the API has.
GREEDY = {"temperature": 0}
ASK = [{"role": "user", "content": "Count from 57 to 68."}]
COUNTED = ", ".join(str(i) for i in range(57, 69))
WEATHER = {
    "name": "get_weather",
    "description": "Tells the weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def client(worker):
    return anthropic.Anthropic(base_url=worker.url, api_key="none", max_retries=0)


def test_a_message(client, model):
    message = client.messages.create(model=model, max_tokens=100, extra_body=GREEDY, messages=ASK)
    assert message.type == "message" and message.role == "assistant" and message.model == model
    assert [block.type for block in message.content] == ["text"]
    assert message.content[0].text == COUNTED
    assert message.stop_reason == "end_turn"
    assert message.usage.input_tokens + message.usage.cache_read_input_tokens > 0


def test_a_stream_gives_the_same_message(client, model):
    whole = client.messages.create(model=model, max_tokens=100, extra_body=GREEDY, messages=ASK)
    with client.messages.stream(model=model, max_tokens=100, extra_body=GREEDY, messages=ASK) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 1 and "".join(pieces) == COUNTED
    assert [block.text for block in final.content] == [block.text for block in whole.content]
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_a_thought_is_a_block_before_the_answer(client, model):
    options = {"model": model, "max_tokens": 200, "messages": [{"role": "user", "content": "What is 12 + 7?"}]}
    options["thinking"] = {"type": "enabled", "budget_tokens": 1024}
    whole = client.messages.create(extra_body=GREEDY, **options)
    assert [block.type for block in whole.content] == ["thinking", "text"]
    with client.messages.stream(extra_body=GREEDY, **options) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.content[0].thinking == whole.content[0].thinking
    # The thought goes back with the next turn.
    turns = [*options["messages"], {"role": "assistant", "content": [b.model_dump() for b in whole.content]}]
    turns.append({"role": "user", "content": "Count from 57 to 58."})
    assert client.messages.create(model=model, max_tokens=20, extra_body=GREEDY, messages=turns).content


def test_a_stop_sequence_is_told(client, model):
    message = client.messages.create(
        model=model, max_tokens=100, extra_body=GREEDY, messages=ASK, stop_sequences=["60", "zzz"]
    )
    assert message.content[0].text == "57, 58, 59, "
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "60")


def test_max_tokens_ends_a_message(client, model):
    message = client.messages.create(model=model, max_tokens=3, extra_body=GREEDY, messages=ASK)
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 3)


def test_tokens_are_counted_as_they_are_used(client, model):
    counted = client.messages.count_tokens(model=model, messages=ASK, system="Be brief.")
    used = client.messages.create(model=model, max_tokens=1, messages=ASK, system="Be brief.").usage
    assert counted.input_tokens == used.input_tokens + used.cache_read_input_tokens


def test_a_forced_tool_is_called(tool_worker, model):
    client = anthropic.Anthropic(base_url=tool_worker.url, api_key="none", max_retries=0)
    options = {"model": model, "max_tokens": 200, "extra_body": GREEDY, "tools": [WEATHER]}
    options["tool_choice"] = {"type": "tool", "name": "get_weather"}
    options["messages"] = [{"role": "user", "content": "Weather in Paris?"}]
    with client.messages.stream(**options) as stream:
        message = stream.get_final_message()
    call = message.content[-1]
    assert (message.stop_reason, call.type, call.name) == ("tool_use", "tool_use", "get_weather")
    assert call.input["city"] in ("Paris", "Rome")


def test_errors_are_the_clients_own_classes(client, model):
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="other", max_tokens=1, messages=ASK)
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.messages.create(model=model, max_tokens=1, extra_body={"temperature": 9}, messages=ASK)
    assert refused.value.body["error"]["type"] == "invalid_request_error"
    assert "temperature" in refused.value.body["error"]["message"]
