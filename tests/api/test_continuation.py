"""An assistant's message that the client has begun and the model goes on with."""

import pytest
from conftest import NAME

COUNT = {"role": "user", "content": "Count from 57 to 68."}
BEGUN = "57, 58, 59,"
REST = " 60, 61, 62, 63, 64, 65, 66, 67, 68"


@pytest.mark.parametrize(
    "mark, body",
    [
        ({"prefix": True}, {}),
        ({}, {"continue_final_message": True}),
        ({}, {"continue_final_message": True, "add_generation_prompt": False}),
    ],
)
def test_the_answer_goes_on_where_the_message_ends(client, mark, body):
    messages = [COUNT, {"role": "assistant", "content": BEGUN, **mark}]
    answer = client.chat.completions.create(model=NAME, messages=messages, temperature=0, extra_body=body)
    assert answer.choices[0].message.content == REST
    assert answer.choices[0].finish_reason == "stop"


def test_without_a_word_the_message_is_history(client):
    messages = [COUNT, {"role": "assistant", "content": BEGUN}]
    answer = client.chat.completions.create(model=NAME, messages=messages, temperature=0)
    assert answer.choices[0].message.content != REST
