"""OpenAI's client against /v1/responses."""

import json

import openai
import pytest

ASK = "Count from 57 to 68."
COUNTED = ", ".join(str(i) for i in range(57, 69))
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Tells the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@pytest.fixture(scope="module")
def client(worker):
    return openai.OpenAI(base_url=f"{worker.url}/v1", api_key="none", max_retries=0)


def test_a_response(client, model):
    response = client.responses.create(model=model, input=ASK, temperature=0)
    assert response.status == "completed"
    assert response.output_text == COUNTED
    assert response.usage.output_tokens > 0
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


def test_a_stream_ends_with_the_whole_response(client, model):
    events = list(client.responses.create(model=model, input=ASK, temperature=0, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text == COUNTED
    with client.responses.stream(model=model, input=ASK, temperature=0) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == COUNTED


def test_a_conversation_is_sent_as_items(client, model):
    first = client.responses.create(
        model=model, input="What is 12 + 7?", temperature=0, reasoning={"effort": "high"}, max_output_tokens=200
    )
    assert [item.type for item in first.output] == ["reasoning", "message"]
    items = [{"role": "user", "content": "What is 12 + 7?"}, *(item.model_dump() for item in first.output)]
    items.append({"role": "user", "content": ASK})
    assert client.responses.create(model=model, input=items, temperature=0).output_text


def test_a_response_that_is_cut_is_incomplete(client, model):
    response = client.responses.create(model=model, input=ASK, temperature=0, max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"


def test_a_forced_tool_is_called(tool_worker, model):
    client = openai.OpenAI(base_url=f"{tool_worker.url}/v1", api_key="none", max_retries=0)
    events = list(
        client.responses.create(
            model=model, input="Weather in Paris?", temperature=0, tools=[TOOL], tool_choice="required",
            parallel_tool_calls=False, stream=True
        )
    )
    call = events[-1].response.output[-1]
    assert (call.type, call.name) == ("function_call", "get_weather")
    assert json.loads(call.arguments)["city"] in ("Paris", "Rome")
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(pieces) == call.arguments


def test_a_format_is_kept(client, model):
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "integer", "enum": [19, 42]}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    response = client.responses.create(
        model=model,
        input="What is 12 + 7?",
        temperature=0,
        max_output_tokens=60,
        text={"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}},
    )
    assert json.loads(response.output_text)["answer"] in (19, 42)


@pytest.mark.parametrize("options", [{"store": True}, {"previous_response_id": "resp_1"}, {"background": True}])
def test_what_needs_a_memory_is_refused_by_name(client, model, options):
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=model, input=ASK, **options)
    assert refused.value.body["param"] == next(iter(options))
