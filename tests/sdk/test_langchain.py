"""LangChain's ChatOpenAI against the worker."""

from typing import Literal

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

COUNTED = ", ".join(str(i) for i in range(57, 69))


def chat_with(worker, model):
    return ChatOpenAI(model=model, base_url=f"{worker.url}/v1", api_key="none", temperature=0, max_retries=0)


@pytest.fixture(scope="module")
def chat(worker, model):
    return chat_with(worker, model)


@tool
def get_weather(city: Literal["Paris", "Rome"]) -> str:
    """Tells the weather of a city."""
    return f"sunny in {city}"


def test_an_answer_with_its_usage(chat):
    answer = chat.invoke("Count from 57 to 68.")
    assert answer.content == COUNTED
    assert answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["finish_reason"] == "stop"


def test_a_stream(chat):
    chunks = list(chat.stream("Count from 57 to 68.", stream_usage=True))
    assert "".join(chunk.content for chunk in chunks) == COUNTED
    assert any(chunk.usage_metadata for chunk in chunks)


def test_many_at_once(chat):
    answers = chat.batch(["Count from 57 to 68."] * 4)
    assert [answer.content for answer in answers] == [COUNTED] * 4


def test_tools_go_there_and_back(tool_worker, model):
    chat = chat_with(tool_worker, model)
    calling = chat.bind_tools([get_weather], tool_choice="get_weather")
    asked = HumanMessage("Weather in Paris?")
    called = calling.invoke([asked])
    assert [call["name"] for call in called.tool_calls] == ["get_weather"]
    answered = ToolMessage(get_weather.invoke(called.tool_calls[0]["args"]), tool_call_id=called.tool_calls[0]["id"])
    assert isinstance(chat.bind_tools([get_weather]).invoke([asked, called, answered], max_tokens=20), AIMessage)
