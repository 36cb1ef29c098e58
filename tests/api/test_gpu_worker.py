"""The whole worker on the emulated GPU (kernels/cuda/emulation), which computes what a GPU does, only slowly: from the
trials of kernels to an answer. What its parts do by themselves is tested beside them."""

import json
import os
import random
import re
import shutil
import signal
import struct
import urllib.request

import openai
import pytest
from conftest import MODEL, ROOT, Worker, wait_for
from test_process import internal
from test_sleep import readiness, tell

FAMILY = ROOT / "tests" / "goldens" / "families" / "qwen2"
VOCABULARY = 1536  # of the default model's tokenizer
BUILD = ROOT / "build" / "dev"
GPUS = {"DSM_EMULATED_GPUS": "2", "LD_LIBRARY_PATH": f"{BUILD / 'emulated-nccl'}:{BUILD / 'emulated-nvml'}"}


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
    def start(*arguments, **variables):
        # The largest steps run at a start; with 16 tokens there is one kernel to try.
        return start_worker("--device", "cuda", "--device-check", "off", "--deterministic", "true",
                            "--max-num-batched-tokens", "16", *arguments,
                            model=model, binary=BUILD / "deepseek-worker-emulated", env={**os.environ, **GPUS, **variables})

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


@pytest.fixture
def node(tmp_path):
    """What the drivers of two GPUs say: a file each, by its PCI address."""
    files = [tmp_path / f"0000:0{number + 1}:00.0" for number in range(2)]
    for number, file in enumerate(files):
        file.write_text(f"minor {number + 4}\n")
    return files


def say(gpu, *lines):
    with open(gpu, "a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def of_gpu(worker, metric, gpu):
    """A metric's value, of one that is there once."""
    text = urllib.request.urlopen(worker.url + "/metrics").read().decode()
    (value,) = re.findall(rf'^{metric}\{{[^}}]*gpu="{gpu}"[^}}]*\}} (\S+)$', text, re.M)
    return float(value)


def next_line(stream, wanted):
    """The next one of the status stream that is as wanted."""
    for line in stream:
        if wanted(said := json.loads(line)):
            return said


def test_it_tells_how_its_gpus_are_and_goes_on_with_one_that_is_only_sick(on_gpu, model, cpus_answer, node, token_file):
    say(node[1], "utilisation 87", "temperature 61", "power 412500", "memory_used 5000", "clock_reasons 4")
    worker = on_gpu("--kernels", "proven", "--kv-cache-tokens", "2048", "--tensor-parallel", "2", "--internal-port", "0",
                    "--internal-token-file", token_file, DSM_EMULATED_NVML=str(node[0].parent)).ready()
    assert of_gpu(worker, "dsm_gpu_utilisation_ratio", "GPU 5") == 0.87
    assert of_gpu(worker, "dsm_gpu_temperature_celsius", "GPU 5") == 61
    assert of_gpu(worker, "dsm_gpu_power_watts", "GPU 5") == 412.5
    assert of_gpu(worker, "dsm_gpu_memory_used_bytes", "GPU 5") == 5000
    assert of_gpu(worker, "dsm_gpu_nvlinks_up", "GPU 4") == 18
    assert wait_for(lambda: of_gpu(worker, "dsm_gpu_memory_allocated_bytes", "GPU 4") > 0), "the rank's own"
    text = urllib.request.urlopen(worker.url + "/metrics").read().decode()
    labels = 'bus="0000:02:00.0",gpu="GPU 5",rank="1"'
    assert f'dsm_gpu_throttled{{{labels},reason="power_cap"}} 1' in text

    stream = internal(worker, "/internal/status")
    ranks = next_line(stream, lambda line: line["phase"] == "Ready")["ranks"]
    assert [rank["device"]["health"] for rank in ranks] == ["Healthy", "Healthy"]
    assert ranks[1]["device"]["temperatureCelsius"] == 61
    # The fault of a program, which the driver tells as well, and a row that is to be replaced.
    say(node[1], "xid 31", "xid 63", "row_pending 1")
    sick = next_line(stream, lambda line: line["ranks"][1]["device"]["health"] == "Degraded")
    assert sick["phase"] == "Ready"
    assert sick["ranks"][0]["device"]["health"] == "Healthy"
    both = next_line(stream, lambda line: len(line["ranks"][1]["device"]["problems"]) == 2)["ranks"][1]["device"]
    assert both["problems"] == ["RowRemapPending", "Xid63"]
    assert both["message"].startswith("GPU 5: a memory row waits to be remapped: reset the GPU")
    assert both["xids"] == [31, 63]
    assert of_gpu(worker, "dsm_gpu_health", "GPU 5") == 1
    assert answer(worker, model)[0] == cpus_answer[0]
    assert worker.stop() == 0


ASK = {"prompt": [7, 300, 12], "max_tokens": 48, "temperature": 0, "logprobs": 1, "stream": True}


def test_a_fatal_error_of_a_gpu_ends_the_process_in_the_middle_of_a_request_and_is_its_last_word(on_gpu, model, node):
    worker = on_gpu("--kernels", "proven", "--kv-cache-tokens", "2048", "--tensor-parallel", "2",
                    DSM_EMULATED_NVML=str(node[0].parent)).ready()
    tokens = tokens_of(worker.client().completions.create(model=model.name, **ASK))
    next(tokens)
    # As the driver does: the error first, then nothing that it is asked.
    say(node[1], "xid 79", "lost 1")
    with pytest.raises(openai.APIError):
        list(tokens)
    assert worker.process.wait(60) == 1
    last = "DeviceLost: rank 1: GPU 5: Xid 79 (GPU has fallen off the bus): restart the node; if it comes back, replace the GPU"
    assert [line for line in worker.log if line][-1].endswith(last)

    # What the kubelet starts again meets the same GPU.
    again = on_gpu("--kernels", "proven", "--kv-cache-tokens", "2048", "--tensor-parallel", "2",
                   DSM_EMULATED_NVML=str(node[0].parent))
    assert again.process.wait(60) == 1
    assert "2 ranks and sees 1 GPUs" in [line for line in again.log if line][-1]


def test_a_request_goes_on_when_a_pod_gets_another_gpu_for_one_that_is_lost(on_gpu, model, group, node):
    arguments = ("--kernels", "proven", "--kv-cache-fraction", "0.001", *group)
    folder = str(node[0].parent)
    follower = on_gpu(*arguments, "--pod-index", "1", DSM_EMULATED_GPUS=node[1].name, DSM_EMULATED_NVML=folder)
    leader = on_gpu(*arguments, "--pod-index", "0", DSM_EMULATED_GPUS=node[0].name, DSM_EMULATED_NVML=folder).ready()
    undisturbed = list(tokens_of(leader.client().completions.create(model=model.name, **ASK)))
    tokens = tokens_of(leader.client().completions.create(model=model.name, **ASK))
    begun = [next(tokens)]
    say(node[1], "xid 79", "lost 1")
    assert follower.process.wait(60) == 1
    assert "DeviceLost: rank 1: GPU 5: Xid 79" in [line for line in follower.log if line][-1]
    another = node[1].with_name("0000:03:00.0")
    another.write_text("minor 6\n")
    again = on_gpu(*arguments, "--pod-index", "1", DSM_EMULATED_GPUS=another.name, DSM_EMULATED_NVML=folder)
    assert begun + list(tokens) == undisturbed
    assert leader.stop() == 0
    assert again.stop() == 0
