#!/usr/bin/env python3
"""Writes tests/text/goldens/templates.json: prompts as the checkpoints' own templates render them.

The templates are not in this repository. Give a folder that has them under the names that worker/text knows them by
(deepseek-v3.1.jinja: the text of `chat_template`), and DeepSeek-V3.2's encoding_dsv32.py:

    .local/venv/bin/python tests/text/make_template_goldens.py FOLDER

What the folder lacks keeps the goldens that are there.
"""

import importlib.util
import json
import pathlib
import sys

import jinja2

GOLDENS = pathlib.Path(__file__).parent / "goldens" / "templates.json"
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"


def system(text):
    return {"role": "system", "content": text}


def user(text):
    return {"role": "user", "content": text}


def assistant(text="", calls=(), reasoning=""):
    message = {"role": "assistant", "content": text}
    if reasoning:
        message["reasoning"] = reasoning
    if calls:
        message["tool_calls"] = [{"name": name, "arguments": arguments} for name, arguments in calls]
    return message


def tool(text):
    return {"role": "tool", "content": text}


WEATHER = ("get_weather", '{"city": "杭州", "days": 2}')
TIME = ("get_time", '{"zone": "Asia/Shanghai", "exact": true, "of": {"a": [1, 2.5, null]}}')
NONE = ("now", "{}")
TALK = [system("You are \"brief\".\n"), user("2+2?"), assistant("4"), user("加3呢？")]
PLAIN = {
    "a question": [user("Hello")],
    "a system prompt": [system("Be brief."), user("Hi")],
    "two system prompts": [system("One."), user("Hi"), system("Two."), assistant("Yes"), user("So?")],
    "several turns": TALK,
    "an answer at the end": TALK[:3],
    "two answers in a row": [user("a"), assistant("b"), assistant("c"), user("d")],
    "an old thought in an answer": [user("a"), assistant("<think>\nhm </think> or </think>\n\nb"), user("c")],
    "text with spaces and lines": [user("  a\n\n b\t"), assistant("\n c \n"), user("\n")],
}
SYSTEM_ONLY = {"only a system prompt": [system("Write a poem.")]}
CALLS = {
    "a call": [user("w?"), assistant(calls=[WEATHER])],
    "a call and its result": [user("w?"), assistant(calls=[WEATHER]), tool("晴 20°")],
    "a call, its result, an answer": [user("w?"), assistant(calls=[WEATHER]), tool("sun"), assistant("Sunny."), user("ok")],
    "two calls": [system("S"), user("w?"), assistant(calls=[WEATHER, TIME]), tool("sun"), tool("12:00"), assistant("Both."), user("x")],
    "text before a call": [user("w?"), assistant("Let me see.", [WEATHER]), tool("sun")],
    "calls in a chain": [user("w?"), assistant(calls=[NONE]), tool("1"), assistant(calls=[TIME]), tool("2"), assistant("Done."), user("y")],
    "calls in two turns": [user("a"), assistant(calls=[NONE]), tool("1"), assistant("b"), user("c"), assistant(calls=[WEATHER, NONE]), tool("2"), tool("3")],
    "three calls": [user("a"), assistant("t", [NONE, WEATHER, TIME]), tool("1"), tool("2"), tool("3")],
}
THOUGHTS = {
    "a thought in an earlier turn": [user("a"), assistant("b", reasoning="hm"), user("c")],
    "a thought before a call": [user("a"), assistant(calls=[WEATHER], reasoning="I look."), tool("sun")],
    "thoughts in a chain": [user("a"), assistant("I call.", [NONE], "one"), tool("1"), assistant(calls=[TIME], reasoning="two"), tool("2")],
    "a thought and an answer": [user("a"), assistant(calls=[NONE], reasoning="one"), tool("1"), assistant("b", reasoning="two"), user("c")],
}
TOOLS = [
    {"name": "get_weather", "description": "The weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}}, "required": ["city"]}},
    {"name": "now", "description": "当前时间", "parameters": {"type": "object", "properties": {}}},
]
WITH_TOOLS = ["a question", "a system prompt", "two calls", "thoughts in a chain"]  # the description is long


def openai(message):
    """As a client sends it, which is what the templates expect."""
    message = dict(message)
    calls = message.pop("tool_calls", None)
    if calls:
        message["tool_calls"] = [{"type": "function", "function": call} for call in calls]
        message["content"] = message["content"] or None
    return message


def jinja_goldens(name, text):
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(text)  # as transformers sets it

    def render(messages, **options):
        options |= {"bos_token": BOS, "eos_token": EOS}
        try:
            return template.render(messages=messages, **options)
        except TypeError:  # R1-0528 fails for calls without text, which others ask to be none
            return template.render(messages=[m | {"content": m["content"] or ""} for m in messages], **options)

    has_tools = "tool" in text
    conversations = PLAIN | SYSTEM_ONLY | (CALLS if has_tools else {})
    switched = "thinking" in text
    for title, messages in conversations.items():
        plain = [openai(m) for m in messages]
        for thinking in [False, True] if switched else [False]:
            for generate in [True, False]:
                yield {"template": name, "title": title, "messages": messages, "thinking": thinking, "generate": generate,
                       "text": render(plain, thinking=thinking, add_generation_prompt=generate)}
        if messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]:
            whole = render(plain, thinking=False, add_generation_prompt=False)
            assert whole.endswith(EOS)
            yield {"template": name, "title": title, "messages": messages, "continue": True, "text": whole.removesuffix(EOS)}
    if "prefix" in text:  # the beginning of a thought
        messages = [user("a"), {"role": "assistant", "content": "b", "prefix": True}]
        whole = render(messages, thinking=True, add_generation_prompt=False)
        yield {"template": name, "title": "a thought that goes on", "thinking": True, "continue": True,
               "messages": [user("a"), assistant(reasoning="b")], "text": whole.removesuffix(EOS)}


def v32_goldens(path):
    spec = importlib.util.spec_from_file_location("encoding_dsv32", path)
    encoder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(encoder)

    def render(messages, thinking, tools=None):
        messages = [openai(m) for m in messages]
        for message in messages:
            message["reasoning_content"] = message.pop("reasoning", None)
        if tools:
            if messages[0]["role"] != "system":
                messages.insert(0, system(""))
            messages[0]["tools"] = [{"type": "function", "function": t} for t in tools]
        return encoder.encode_messages(messages, "thinking" if thinking else "chat")

    for title, messages in (PLAIN | CALLS | THOUGHTS).items():
        for thinking in [False, True]:
            for tools in [None, TOOLS] if title in WITH_TOOLS else [None]:
                case = {"template": "deepseek-v3.2", "title": title, "messages": messages, "thinking": thinking}
                if tools:
                    case["tools"] = tools
                try:
                    yield case | {"text": render(messages, thinking, tools)}
                except AssertionError:
                    pass  # its encoder wants a thought in the last turn; ours writes an empty one
        if messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]:
            whole = render(messages, False)
            yield {"template": "deepseek-v3.2", "title": title, "messages": messages, "continue": True,
                   "text": whole.removesuffix(EOS)}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    goldens = json.loads(GOLDENS.read_text()) if GOLDENS.exists() else []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".jinja":
            name, made = path.stem, list(jinja_goldens(path.stem, path.read_text()))
        elif path.name == "encoding_dsv32.py":
            name, made = "deepseek-v3.2", list(v32_goldens(path))
        else:
            continue
        goldens = [g for g in goldens if g["template"] != name] + made
    goldens.sort(key=lambda g: g["template"])
    GOLDENS.parent.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(g, ensure_ascii=False) for g in goldens)
    GOLDENS.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
