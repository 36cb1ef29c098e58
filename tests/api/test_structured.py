"""Answers that must match a format, from a model that knows nothing of formats: the grammar alone makes them so."""

import json
import re

import openai
import pytest
from conftest import MODEL, NAME, Worker

ASK = [{"role": "user", "content": "Tell me something."}]
SUM = [{"role": "user", "content": "计算 71+51"}]
# Properties in an order that is not the alphabet's.
SCHEMA = {
    "type": "object",
    "properties": {
        "word": {"type": "string", "maxLength": 12},
        "count": {"type": "integer", "minimum": 1, "maximum": 99},
        "again": {"type": "boolean"},
    },
    "required": ["word", "count", "again"],
    "additionalProperties": False,
}


def chat(client, messages=None, **options):
    return client.chat.completions.create(model=NAME, messages=messages or ASK, max_tokens=400, **options)


def schema_format(schema, **more):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **more}}


def check_schema(text):
    value = json.loads(text)
    assert list(value) == ["word", "count", "again"], "in the schema's order"
    assert isinstance(value["word"], str) and len(value["word"]) <= 12
    assert 1 <= value["count"] <= 99
    assert isinstance(value["again"], bool)


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("strict", [True, False])
def test_a_schema_is_kept_to(client, temperature, strict):
    answer = chat(client, response_format=schema_format(SCHEMA, strict=strict), temperature=temperature, seed=4)
    assert answer.choices[0].finish_reason == "stop"
    check_schema(answer.choices[0].message.content)


def test_a_schema_is_kept_to_by_each_choice_and_in_a_stream(client):
    several = chat(client, response_format=schema_format(SCHEMA), temperature=1.5, seed=2, n=3)
    for choice in several.choices:
        check_schema(choice.message.content)
    pieces = chat(client, response_format=schema_format(SCHEMA), temperature=1.5, seed=2, stream=True)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == several.choices[0].message.content


def test_any_object(client):
    answer = chat(
        client, response_format={"type": "json_object"}, temperature=0, logit_bias={}, extra_body={"top_k": 1}
    )
    # An open grammar may go on for ever with a model that does not want to end: what is there is JSON's beginning.
    text = answer.choices[0].message.content
    assert text.lstrip().startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("name", ["structured_outputs", "guided"])
@pytest.mark.parametrize(
    "kind, value, matches",
    [
        ("regex", r"[a-f]{3}-[0-9]{4}", lambda text: re.fullmatch(r"[a-f]{3}-[0-9]{4}", text)),
        ("choice", ["Paris", "巴黎", "Rome is far"], lambda text: text in ("Paris", "巴黎", "Rome is far")),
        ("json", SCHEMA, lambda text: list(json.loads(text)) == ["word", "count", "again"]),
        ("grammar", 'start: "<" /[0-9]+/ ">"', lambda text: re.fullmatch(r"<[0-9]+>", text)),
    ],
)
def test_other_formats(client, name, kind, value, matches):
    body = {"structured_outputs": {kind: value}} if name == "structured_outputs" else {f"guided_{kind}": value}
    for seed in (1, 2):
        answer = chat(client, temperature=1, seed=seed, extra_body=body)
        text = answer.choices[0].message.content
        assert answer.choices[0].finish_reason == "stop" or kind == "grammar"
        if answer.choices[0].finish_reason == "stop":
            assert matches(text), text


def test_a_completion_keeps_to_a_format_too(client):
    answer = client.completions.create(
        model=NAME, prompt="x", max_tokens=50, temperature=1, seed=1, extra_body={"guided_regex": "(ab|cd){4}"}
    )
    assert re.fullmatch("(ab|cd){4}", answer.choices[0].text)


def test_the_thought_is_free(client):
    answer = chat(
        client,
        SUM,
        temperature=0,
        extra_body={"thinking": {"type": "enabled"}, "guided_regex": r"sum: [0-9]{1,3}"},
    )
    message = answer.choices[0].message
    assert message.reasoning_content == "1+1=2, 7+5=12"
    assert re.fullmatch(r"sum: [0-9]{1,3}", message.content)


def test_a_format_that_holds_back_nothing_changes_nothing(client):
    plain = chat(client, SUM, temperature=0).choices[0].message.content
    held = chat(client, SUM, temperature=0, extra_body={"guided_regex": r"[0-9+=]+"})
    assert held.choices[0].message.content == plain


@pytest.mark.parametrize(
    "options, param",
    [
        ({"response_format": schema_format({"type": "no such type"})}, "response_format"),
        ({"extra_body": {"guided_regex": "(unclosed"}}, "guided_regex"),
        ({"extra_body": {"structured_outputs": {"grammar": "start: nowhere"}}}, "structured_outputs"),
    ],
)
def test_a_format_that_cannot_be_kept_is_refused_by_name(client, options, param):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, **options)
    assert refused.value.body["param"] == param


# ---- tools, with a model that was never taught them: it calls one because the marker that opens calls is favoured.


@pytest.fixture(scope="module")
def tool_client():
    running = Worker("--chat-template", "deepseek-v3.1").ready()
    yield running.client()
    assert running.stop() == 0


def marker(content):
    added = json.loads((MODEL / "tokenizer.json").read_text())["added_tokens"]
    return next(str(token["id"]) for token in added if token["content"] == content)


def tool(strict):
    return {"type": "function", "function": {"name": "tell", "parameters": SCHEMA, "strict": strict}}


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_strict_tool_is_called_as_its_schema_says_where_the_model_chooses(tool_client, thinking, seed):
    answer = chat(
        tool_client,
        tools=[tool(strict=True)],
        parallel_tool_calls=False,
        temperature=1,
        seed=seed,
        logit_bias={marker("<｜tool▁calls▁begin｜>"): 100},
        extra_body={"thinking": {"type": "enabled" if thinking else "disabled"}},
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    for call in choice.message.tool_calls:
        assert call.function.name == "tell"
        check_schema(call.function.arguments)
    assert "｜" not in (choice.message.content or "")


def test_a_strict_tool_leaves_a_text_as_it_is(tool_client):
    loose = chat(tool_client, SUM, tools=[tool(strict=False)], temperature=0).choices[0]
    strict = chat(tool_client, SUM, tools=[tool(strict=True)], temperature=0).choices[0]
    assert not loose.message.tool_calls
    assert strict.message.content == loose.message.content
    assert strict.finish_reason == loose.finish_reason


def test_a_strict_tool_whose_schema_cannot_be_kept_is_refused(tool_client):
    odd = tool(strict=True)
    odd["function"]["parameters"] = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(openai.BadRequestError) as refused:
        chat(tool_client, tools=[odd])
    assert refused.value.body["param"] == "tools"
    assert "uniqueItems" in refused.value.body["message"]
