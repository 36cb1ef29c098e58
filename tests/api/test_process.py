"""The worker as a process: start-up errors, health while it loads, drain, several ranks."""

import json
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request

import openai
import pytest
from conftest import MODEL, NAME, ROOT, program, wait_for

ASK = [{"role": "user", "content": "Count from 57 to 68."}]
COUNTED = "57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68"


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "--model is missing"),
        (["--model", "/nowhere"], "/nowhere/config.json"),
        (["--model", str(MODEL), "--tensor-parallel", "3"], "3"),
        (["--model", str(MODEL), "--max-model-len", "4096"], "the model allows 2048"),
        (["--model", str(MODEL), "--nonsense"], "unknown flag --nonsense"),
        (["--model", str(MODEL), "--internal-token-file", "/nowhere"], "/nowhere"),
    ],
)
def test_what_is_wrong_at_the_start_is_said_in_a_sentence(arguments, sentence):
    ended = subprocess.run([program(), *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert ended.returncode == 1
    assert sentence in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "asked, sentence",
    [
        ("none", "is none, but the checkpoint is in INT4 (quantization_config in config.json)"),
        ("fp8", "is fp8, but the checkpoint is in INT4 (quantization_config in config.json)"),
        ("int8", "is int8: weights are to be rounded to INT8, but the checkpoint has them in INT4 already"),
    ],
)
def test_a_checkpoint_in_integers_is_not_taken_for_another(tmp_path, asked, sentence):
    config = json.loads((MODEL / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ended = subprocess.run(
        [program(), "--model", tmp_path, "--weight-quantization", asked], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert sentence in ended.stderr.splitlines()[-1]


def test_a_wrong_answer_to_the_probe_ends_the_worker_with_the_reason_first(tmp_path):
    """Here the file is wrong and not the weights, which is all the same to the worker."""
    for file in MODEL.iterdir():
        (tmp_path / file.name).symlink_to(file)
    probe = json.loads((MODEL / "probe.json").read_text())
    right = probe["answer"][2]
    probe["answer"][2] = right + 1
    (tmp_path / "probe.json").unlink()
    (tmp_path / "probe.json").write_text(json.dumps(probe))
    ended = subprocess.run(
        [program(), "--model", tmp_path, "--host", "127.0.0.1", "--port", "0", "--tensor-parallel", "2"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        f"deepseek-worker: ProbeFailed: the answer to the probe is wrong: token 3 of 8 is {right}, "
        f"by the checkpoint's probe.json it is {right + 1}"
    )


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            [program(), "--model", MODEL, "--host", "127.0.0.1", "--port", port],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr


def test_help_names_every_flag():
    text = subprocess.run([program(), "--help"], capture_output=True, text=True, check=True).stdout
    for flag in ("--model", "--tensor-parallel", "--drain-timeout", "--internal-token-file"):
        assert flag in text


def test_several_ranks_in_one_process_give_the_same_answer(start_worker):
    worker = start_worker("--tensor-parallel", "2").ready()
    answer = worker.client().chat.completions.create(model=NAME, messages=ASK)
    assert answer.choices[0].message.content == COUNTED
    assert worker.stop() == 0


def test_sigterm_lets_the_running_request_finish_and_refuses_new_ones(start_worker):
    worker = start_worker().ready()
    client = worker.client()
    stream = client.chat.completions.create(
        model=NAME, messages=ASK, stream=True, max_tokens=300, temperature=1, seed=1, extra_body={"ignore_eos": True}
    )
    events = iter(stream)
    next(events)
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for_log("draining")
    with pytest.raises(urllib.error.HTTPError) as unready:
        urllib.request.urlopen(worker.url + "/health/ready")
    assert unready.value.code == 503
    assert json.loads(unready.value.read())["reason"] == "Draining"
    last = None
    for last in events:
        pass
    assert last.choices[0].finish_reason == "length"
    assert worker.process.wait(timeout=60) == 0


def test_requests_that_do_not_end_in_time_are_ended(start_worker):
    worker = start_worker("--drain-timeout", "0").ready()
    failures = []

    def ask():
        try:
            worker.client().chat.completions.create(
                model=NAME, messages=ASK, max_tokens=2000, temperature=1, extra_body={"ignore_eos": True}
            )
        except openai.APIStatusError as error:
            failures.append(error.status_code)

    asking = [threading.Thread(target=ask) for _ in range(16)]
    for thread in asking:
        thread.start()
    assert wait_for(lambda: worker.metric("dsm_requests_running") == 16)
    assert worker.stop(signal.SIGINT) == 0
    for thread in asking:
        thread.join()
    assert failures == [503] * 16


def internal(worker, path, method="GET", token="a-secret-token"):
    request = urllib.request.Request(
        f"http://127.0.0.1:{worker.internal_port}{path}", method=method, headers={"Authorization": f"Bearer {token}"}
    )
    return urllib.request.urlopen(request, timeout=30)


def test_the_status_stream_and_drain_on_the_internal_port(start_worker, token_file):
    worker = start_worker(
        "--internal-port", "0", "--internal-token-file", token_file, "--revision", "abc", "--group", "g0"
    ).ready()
    with pytest.raises(urllib.error.HTTPError) as refused:
        internal(worker, "/internal/status", token="wrong")
    assert refused.value.code == 401
    stream = internal(worker, "/internal/status")
    line = json.loads(stream.readline())
    while line["phase"] != "Ready":
        line = json.loads(stream.readline())
    assert line["revision"] == "abc"
    assert line["group"] == "g0"
    assert line["maxModelLen"] == 2048
    assert line["loadedBytes"] == line["totalBytes"] > 0
    assert [rank["phase"] for rank in line["ranks"]] == ["Ready"]
    worker.client().chat.completions.create(model=NAME, messages=ASK)
    while line["tokensPerSecond"] == 0:
        line = json.loads(stream.readline())
    assert internal(worker, "/internal/drain", method="POST").status == 202
    while line["phase"] != "Draining":
        line = json.loads(stream.readline())
    # A drained worker waits for its end: it does not restart by itself.
    assert worker.process.poll() is None
    assert worker.stop(signal.SIGTERM) == 0


def test_a_client_that_stops_reading_its_stream_is_cut_off(start_worker):
    """Sixteen choices with the log probabilities of twenty tokens each are more than the sockets' buffers hold."""
    worker = start_worker("--unread-bytes", "200000").ready()
    body = {
        "model": NAME, "messages": ASK, "stream": True, "n": 16, "max_tokens": 1000, "temperature": 1,
        "ignore_eos": True, "logprobs": True, "top_logprobs": 20,
    }  # fmt: skip
    text = json.dumps(body).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", worker.port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n"
        client.sendall(head.encode() + text)
        worker.wait_for_log('reason="slow_reader"')
        received = b""
        try:
            while piece := client.recv(1 << 16):
                received += piece
        except ConnectionResetError:
            pass
        assert len(received) > 200000, "what the sockets' buffers held"
        assert b"[DONE]" not in received
    assert wait_for(lambda: worker.metric("dsm_requests_running") == 0)
    answer = worker.client().chat.completions.create(model=NAME, messages=ASK)
    assert answer.choices[0].message.content == COUNTED


def test_a_group_of_two_processes(start_worker, group):
    """The leader serves; the follower only answers health, and outlives the leader."""
    follower = start_worker(*group, "--pod-index", "1")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(follower.url + "/health/ready")
    assert urllib.request.urlopen(follower.url + "/health/live").status == 200
    leader = start_worker(*group, "--pod-index", "0").ready()
    answer = leader.client().chat.completions.create(model=NAME, messages=ASK)
    assert answer.choices[0].message.content == COUNTED
    assert urllib.request.urlopen(follower.url + "/health/ready").status == 200
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(follower.url + "/v1/models")
    assert refused.value.code == 404
    stream = leader.client().chat.completions.create(
        model=NAME, messages=ASK, stream=True, max_tokens=200, temperature=1, extra_body={"ignore_eos": True}
    )
    events = iter(stream)
    next(events)
    follower.process.send_signal(signal.SIGTERM)
    leader.process.send_signal(signal.SIGTERM)
    *_, last = events
    assert last.choices[0].finish_reason == "length"
    assert leader.process.wait(timeout=60) == 0
    assert follower.process.wait(timeout=60) == 0
