"""The whole worker on the emulated GPU (kernels/cuda/emulation), which computes what a GPU does, only slowly: from the
trials of kernels to an answer. What its parts do by themselves is tested beside them."""

import json
import os
import random
import shutil
import signal
import struct

import pytest
from conftest import MODEL, ROOT, Worker, wait_for
from test_process import internal
from test_sleep import readiness, tell

FAMILY = ROOT / "tests" / "goldens" / "families" / "qwen2"
VOCABULARY = 1536  # of the default model's tokenizer
BUILD = ROOT / "build" / "dev"
GPUS = {"DSM_EMULATED_GPUS": "2", "LD_LIBRARY_PATH": str(BUILD / "emulated-nccl")}


def read_tensors(path):
    """By name: the type, the shape and the bytes."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, data = json.loads(data[8:8 + length]), data[8 + length:]
    header.pop("__metadata__", None)
    return {name: (one["dtype"], one["shape"], data[slice(*one["data_offsets"])]) for name, one in header.items()}


def write_tensors(path, tensors):
    header, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The tiny random model of a family with rows for every token of the default model's tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(MODEL / file, folder)
    config = json.loads((FAMILY / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": VOCABULARY}))
    tensors = read_tensors(FAMILY / "model.safetensors")
    numbers = random.Random(1)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        dtype, (_, width), _ = tensors[name]
        assert dtype == "BF16"
        # The upper half of an FP32.
        values = b"".join(struct.pack("<f", numbers.gauss(0, 0.1))[2:] for _ in range(VOCABULARY * width))
        tensors[name] = dtype, [VOCABULARY, width], values
    write_tensors(folder / "model.safetensors", tensors)
    return folder


@pytest.fixture
def on_gpu(model, start_worker):
    def start(*arguments):
        # The largest steps run at a start; with 16 tokens there is one kernel to try.
        return start_worker("--device", "cuda", "--device-check", "off", "--deterministic", "true",
                            "--max-num-batched-tokens", "16", *arguments,
                            model=model, binary=BUILD / "deepseek-worker-emulated", env={**os.environ, **GPUS})

    return start


def answer(worker, model):
    """Tokens, and what others were worth at each place."""
    asked = worker.client().completions.create(
        model=model.name, prompt=[7, 300, 12, 999, 45], max_tokens=8, temperature=0, logprobs=5)
    said = asked.choices[0].logprobs
    return said.tokens, said.top_logprobs


@pytest.fixture(scope="module")
def cpus_answer(model):
    worker = Worker("--device", "cpu", model=model).ready()
    yield answer(worker, model)
    assert worker.stop() == 0


# By what is left of the GPU's memory, which each rank says when it has loaded, or as many tokens as are asked for.
@pytest.mark.parametrize("cache", [("--kv-cache-fraction", "0.001"), ("--kv-cache-tokens", "2048")])
def test_it_answers_as_a_cpu_does(on_gpu, model, cpus_answer, cache):
    worker = on_gpu("--kernels", "proven", *cache).ready()
    tokens, worth = answer(worker, model)
    assert tokens == cpus_answer[0]
    for here, there in zip(worth, cpus_answer[1], strict=True):
        for token in here.keys() & there.keys():
            assert here[token] == pytest.approx(there[token], abs=1e-3)
    assert worker.stop() == 0


@pytest.mark.parametrize("sums", ["nccl", "peer"])
def test_two_ranks_answer_as_one_on_a_cpu(on_gpu, model, cpus_answer, sums):
    worker = on_gpu("--kernels", "proven", "--kv-cache-tokens", "2048", "--tensor-parallel", "2", "--all-reduce", sums).ready()
    said = worker.wait_for_log(r"ranks add up .*by=\"(.*)\"").group(1)
    assert said.startswith("NCCL" if sums == "nccl" else "sums: ")
    assert answer(worker, model)[0] == cpus_answer[0]
    assert worker.stop() == 0


def test_it_tries_kernels_at_its_start_and_says_which_it_uses(on_gpu, model, cpus_answer):
    worker = on_gpu("--kv-cache-tokens", "2048").ready()
    assert "megakernel: 1 row" in worker.wait_for_log(r"which kernels.*why=\"measured: (.*)\"").group(1)
    assert worker.metric("dsm_gpu_kernels_info") == 1
    assert answer(worker, model)[0] == cpus_answer[0]
    assert worker.stop() == 0


def test_two_ranks_sleep_and_wake_with_the_same_answers(on_gpu, model, cpus_answer, token_file):
    worker = on_gpu("--kernels", "proven", "--kv-cache-fraction", "0.001", "--sleep-mode", "true", "--tensor-parallel", "2",
                    "--internal-port", "0", "--internal-token-file", token_file).ready()
    tell(worker, "/internal/sleep")
    assert wait_for(lambda: readiness(worker) == "Asleep")
    tell(worker, "/internal/wake")
    assert wait_for(lambda: readiness(worker) == "", timeout=120)
    assert answer(worker, model)[0] == cpus_answer[0]
    assert internal(worker, "/internal/status").status == 200
    assert worker.stop() == 0


def tokens_of(stream):
    for chunk in stream:
        yield from chunk.choices[0].logprobs.tokens if chunk.choices and chunk.choices[0].logprobs else ()


def test_a_request_goes_on_when_a_pod_of_its_group_is_lost_and_comes_again(on_gpu, model, cpus_answer, group):
    """Over NCCL: who is left gives the communicator up, keeps its weights, and meets the one that has loaded again."""
    arguments = ("--kernels", "proven", "--kv-cache-fraction", "0.001", *group)
    follower = on_gpu(*arguments, "--pod-index", "1")
    leader = on_gpu(*arguments, "--pod-index", "0").ready()
    assert leader.wait_for_log(r"ranks add up .*by=\"(.*)\"").group(1) == "NCCL"
    assert answer(leader, model)[0] == cpus_answer[0]
    ask = {"model": model.name, "prompt": [7, 300, 12], "max_tokens": 48, "temperature": 0, "logprobs": 1, "stream": True}
    undisturbed = list(tokens_of(leader.client().completions.create(**ask)))
    assert len(undisturbed) == 48
    tokens = tokens_of(leader.client().completions.create(**ask))
    begun = [next(tokens)]
    assert follower.stop(signal.SIGKILL) != 0
    again = on_gpu(*arguments, "--pod-index", "1")
    assert begun + list(tokens) == undisturbed
    leader.wait_for_log("group formed .*epoch=2")
    assert leader.stop() == 0
    assert again.stop() == 0
