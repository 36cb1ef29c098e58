"""LoRA adapters of a real worker: chosen by name, mixed in one batch, loaded and unloaded while requests run."""

import threading

import openai
import pytest
from conftest import MODEL, NAME, Worker
from peft_adapter import write_adapter

# The first is longer than a block of the prefix cache.
QUESTIONS = [f"Sort {', '.join(str(97 * i % 1000) for i in range(60))}.", "What is the capital of France?",
             "Count from 57 to 68."]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """A folder with adapters `one`, `two` and, refused when it is loaded, `dora`."""
    root = tmp_path_factory.mktemp("adapters")
    write_adapter(root / "one", 1)
    write_adapter(root / "two", 2)
    write_adapter(root / "dora", 3, use_dora=True)
    return root


def both(adapters):
    return ("--lora-modules", f"one={adapters / 'one'},two={adapters / 'two'}")


def answer(client, model, question, **options):
    made = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_tokens=40, temperature=1, seed=7,
        logprobs=True, extra_body={"ignore_eos": True}, **options)
    assert made.model == model
    return made.choices[0].model_dump()


def answers(worker, models=("one", "two", NAME)):
    client = worker.client()
    return {(model, question): answer(client, model, question) for model in models for question in QUESTIONS}


@pytest.fixture(scope="module")
def alone(worker, adapters):
    """Each request by itself: the model of a worker without adapters, and each adapter of one that has it."""
    made = answers(worker, [NAME])
    for name in ("one", "two"):
        single = Worker("--lora-modules", f"{name}={adapters / name}", "--prefix-caching=false")
        made |= answers(single.ready(), [name])
        assert single.stop() == 0
    return made


def load(client, name, path):
    return client.post("/load_lora_adapter", body={"lora_name": name, "lora_path": str(path)}, cast_to=object)


def unload(client, name):
    return client.post("/unload_lora_adapter", body={"lora_name": name}, cast_to=object)


def test_a_name_chooses_the_adapter(start_worker, adapters, alone):
    worker = start_worker(*both(adapters)).ready()
    client = worker.client()
    for question in QUESTIONS:
        texts = {alone[model, question]["message"]["content"] for model in ("one", "two", NAME)}
        assert len(texts) == 3, "the adapters change the answers"
    # One after the other with the prefix cache: the same prompt under three names shares nothing.
    assert answers(worker) == alone
    assert worker.metric("vllm:prefix_cache_hits_total") == 0
    assert answer(client, "one", QUESTIONS[0]) == alone["one", QUESTIONS[0]]
    assert worker.metric("vllm:prefix_cache_hits_total") > 0
    models = {model.id: model.model_dump() for model in client.models.list()}
    assert list(models) == [NAME, "one", "two"]
    assert models["one"]["parent"] == NAME and models["one"]["root"] == str(adapters / "one")
    with pytest.raises(openai.NotFoundError) as unknown:
        answer(client, "three", QUESTIONS[0])
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.PermissionDeniedError):
        load(client, "three", adapters / "one")


def test_rows_of_all_adapters_in_one_batch_have_the_bits_that_they_have_alone(start_worker, adapters, alone):
    worker = start_worker(*both(adapters), "--max-num-seqs", "16", "--max-num-batched-tokens", "48").ready()
    client, made = worker.client(), {}

    def ask(model, question):
        made[model, question] = answer(client, model, question)

    threads = [threading.Thread(target=ask, args=key) for key in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == alone


@pytest.mark.parametrize("arguments", [
    ["--tensor-parallel", "4"],
    ["--speculative-method", "mtp", "--speculative-tokens", "3"],
    ["--speculative-method", "ngram", "--speculative-tokens", "4", "--tensor-parallel", "2"],
], ids=["four ranks", "mtp", "ngram, two ranks"])
def test_ranks_and_guesses_change_nothing(start_worker, adapters, alone, arguments):
    assert answers(start_worker(*both(adapters), *arguments).ready()) == alone


def test_the_processes_of_a_group_load_the_same_adapters(start_worker, adapters, alone, group):
    follower = start_worker(*group, *both(adapters), "--pod-index", "1")
    leader = start_worker(*group, *both(adapters), "--pod-index", "0").ready()
    assert answers(leader) == alone
    assert leader.stop() == 0
    other = start_worker(*group, "--lora-modules", f"one={adapters / 'one'}", "--pod-index", "0")
    other.wait_for_log("its model or its settings differ from the leader's")
    follower.process.kill()


def test_the_processes_of_a_group_load_together_and_after_one_was_lost(start_worker, adapters, alone, group):
    loads = ("--lora-dir", str(adapters))
    follower = start_worker(*group, *loads, "--pod-index", "1")
    client = start_worker(*group, *loads, "--pod-index", "0").ready().client()
    load(client, "one", "one")
    load(client, "two", "two")
    assert answer(client, "one", QUESTIONS[0]) == alone["one", QUESTIONS[0]]
    unload(client, "two")
    follower.process.kill()
    follower.process.wait()
    start_worker(*group, *loads, "--pod-index", "1")
    # The request waits until the new process has the adapter, too.
    assert answer(client, "one", QUESTIONS[1]) == alone["one", QUESTIONS[1]]
    with pytest.raises(openai.NotFoundError):
        answer(client, "two", QUESTIONS[1])
    load(client, "two", "two")
    assert answer(client, "two", QUESTIONS[1]) == alone["two", QUESTIONS[1]]


def test_adapters_come_and_go_while_requests_run(start_worker, adapters, alone):
    worker = start_worker("--lora-dir", str(adapters), "--max-loras", "1").ready()
    client = worker.client()
    with pytest.raises(openai.NotFoundError):
        answer(client, "one", QUESTIONS[0])
    assert load(client, "one", "one")["parent"] == NAME
    assert answer(client, "one", QUESTIONS[0]) == alone["one", QUESTIONS[0]]
    stream = client.chat.completions.create(
        model="one", messages=[{"role": "user", "content": QUESTIONS[2]}], max_tokens=1500, temperature=1, seed=7,
        stream=True, extra_body={"ignore_eos": True})
    pieces = iter(stream)
    text = [next(pieces).choices[0].delta.content or ""]
    # Its name is gone at once, its weights when the stream has ended.
    unload(client, "one")
    assert [model.id for model in client.models.list()] == [NAME]
    with pytest.raises(openai.NotFoundError):
        answer(client, "one", QUESTIONS[0])
    with pytest.raises(openai.BadRequestError) as full:
        load(client, "two", "two")
    assert full.value.code == "too_many_lora_adapters"
    for piece in pieces:
        assert piece.model == "one"
        text.append(piece.choices[0].delta.content or "")
    # The shorter answer may end inside of a character.
    assert "".join(text).startswith(alone["one", QUESTIONS[2]]["message"]["content"].rstrip("\ufffd"))
    load(client, "two", adapters / "two")
    assert answer(client, "two", QUESTIONS[0]) == alone["two", QUESTIONS[0]]
    assert answer(client, NAME, QUESTIONS[1]) == alone[NAME, QUESTIONS[1]]
    # The same name with other weights: nothing of the first is found in the cache.
    unload(client, "two")
    load(client, "two", adapters / "one")
    assert answer(client, "two", QUESTIONS[0]) == alone["one", QUESTIONS[0]]


def test_what_cannot_be_loaded_is_refused(start_worker, adapters):
    client = start_worker("--lora-dir", str(adapters), "--max-lora-rank", "4").ready().client()
    for name, path, why in [
        ("dora", "dora", "use_dora"),
        (NAME, "one", "the model itself"),
        ("a b", "one", "lora_name"),
        ("out", "../", "below the one of --lora-dir"),
        ("out", str(MODEL), "below the one of --lora-dir"),
    ]:
        with pytest.raises(openai.BadRequestError) as refused:
            load(client, name, path)
        assert why in refused.value.message
    with pytest.raises(openai.NotFoundError) as missing:
        load(client, "none", "nowhere")
    assert "adapter_config.json" in missing.value.message
    load(client, "one", "one")
    with pytest.raises(openai.BadRequestError) as twice:
        load(client, "one", "one")
    assert "loaded already" in twice.value.message
    with pytest.raises(openai.NotFoundError):
        unload(client, "two")


@pytest.mark.parametrize("value, sentence", [
    ("one=/nowhere", "--lora-modules: one: /nowhere/adapter_config.json: cannot be opened"),
    ("one={root}/dora", "use_dora is not supported"),
    (NAME + "={root}/one", "is the model itself"),
])
def test_a_bad_adapter_at_the_start_is_said_in_a_sentence(start_worker, adapters, value, sentence):
    worker = start_worker("--lora-modules", value.format(root=adapters))
    worker.wait_for_log(sentence)
    assert worker.process.wait(timeout=30) == 1
