"""Sleep and wake of the worker as a process: over its internal port, alone and as a group of two."""

import json
import signal
import threading
import urllib.error
import urllib.request

import openai
import pytest
from conftest import NAME, wait_for
from test_process import ASK, COUNTED, internal


def tell(worker, path):
    assert internal(worker, path, method="POST").status == 202


def readiness(worker):
    """Its reason; empty when it is ready."""
    try:
        urllib.request.urlopen(worker.url + "/health/ready")
        return ""
    except urllib.error.HTTPError as unready:
        return json.loads(unready.read())["reason"]


def resident_bytes(worker):
    with open(f"/proc/{worker.process.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def fill_cache(worker, prompts=6, tokens=1900):
    """Prompts of which none begins as another does."""
    for first in range(prompts):
        prompt = [10 + first] + [100 + (7 * i + first) % 900 for i in range(tokens - 1)]
        worker.client().completions.create(model=NAME, prompt=prompt, max_tokens=1)


@pytest.fixture
def sleeper(start_worker, token_file):
    return start_worker("--internal-port", "0", "--internal-token-file", token_file).ready()


def test_a_worker_that_sleeps_gives_its_cache_back_and_answers_the_same_afterwards(sleeper):
    client = sleeper.client()
    fill_cache(sleeper)
    ask = {"model": NAME, "messages": ASK, "logprobs": True, "top_logprobs": 5}
    before = client.chat.completions.create(**ask)
    assert before.choices[0].message.content == COUNTED
    awake = resident_bytes(sleeper)
    tell(sleeper, "/internal/sleep")
    assert wait_for(lambda: readiness(sleeper) == "Asleep")
    assert awake - resident_bytes(sleeper) > 4 << 20
    assert sleeper.metric("dsm_asleep") == 1
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as refused:
            client.chat.completions.create(model=NAME, messages=ASK, stream=stream)
        assert refused.value.status_code == 503
        assert refused.value.body["code"] == "asleep"
        assert int(refused.value.response.headers["Retry-After"]) > 0
    assert client.models.list().data[0].id == NAME
    assert urllib.request.urlopen(sleeper.url + "/health/live").status == 200
    tell(sleeper, "/internal/wake")
    assert wait_for(lambda: readiness(sleeper) == "")
    after = client.chat.completions.create(**ask)
    assert after.choices[0].message.content == COUNTED
    assert after.choices[0].logprobs == before.choices[0].logprobs, "to the last bit"
    assert after.usage.prompt_tokens_details.cached_tokens == 0
    assert sleeper.stop() == 0


def test_a_client_that_tries_again_gets_its_answer_when_the_model_is_awake(sleeper):
    tell(sleeper, "/internal/sleep")
    assert wait_for(lambda: readiness(sleeper) == "Asleep")
    answers = []
    patient = openai.OpenAI(base_url=f"{sleeper.url}/v1", api_key="none", max_retries=8)
    asking = threading.Thread(
        target=lambda: answers.append(patient.chat.completions.create(model=NAME, messages=ASK))
    )
    refused = sleeper.metric("dsm_requests_rejected_total")
    asking.start()
    assert wait_for(lambda: sleeper.metric("dsm_requests_rejected_total") > refused)
    tell(sleeper, "/internal/wake")
    asking.join()
    assert answers[0].choices[0].message.content == COUNTED


def test_requests_in_work_finish_first_or_are_ended(sleeper):
    def stream():
        return iter(
            sleeper.client().chat.completions.create(
                model=NAME, messages=ASK, stream=True, max_tokens=1500, temperature=1, extra_body={"ignore_eos": True}
            )
        )

    events = stream()
    next(events)
    tell(sleeper, "/internal/sleep")
    assert readiness(sleeper) in ("FallingAsleep", "Asleep")
    *_, last = events
    assert last.choices[0].finish_reason == "length"
    assert wait_for(lambda: readiness(sleeper) == "Asleep")
    tell(sleeper, "/internal/wake")
    assert wait_for(lambda: readiness(sleeper) == "")
    events = stream()
    next(events)
    tell(sleeper, "/internal/sleep?mode=abort")
    with pytest.raises(openai.APIError) as ended:
        list(events)
    assert "sleeps" in str(ended.value)
    assert wait_for(lambda: readiness(sleeper) == "Asleep")
    assert sleeper.stop(signal.SIGTERM) == 0


def test_only_with_the_token_and_a_mode_that_there_is(sleeper):
    for path, token, status in (
        ("/internal/sleep", "wrong", 401),
        ("/internal/wake", "wrong", 401),
        ("/internal/sleep?level=2", "a-secret-token", 400),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            internal(sleeper, path, method="POST", token=token)
        assert refused.value.code == status
    assert readiness(sleeper) == ""


def test_a_group_of_two_processes_sleeps_as_a_whole(start_worker, group):
    follower = start_worker(*group, "--pod-index", "1")
    leader = start_worker(*group, "--pod-index", "0").ready()
    tell(leader, "/internal/sleep")
    assert wait_for(lambda: readiness(leader) == readiness(follower) == "Asleep")
    with pytest.raises(urllib.error.HTTPError) as refused:
        internal(follower, "/internal/sleep", method="POST")
    assert refused.value.code == 404, "it is the leader who is told"
    # A rank that is lost meanwhile comes back and sleeps.
    assert follower.stop(signal.SIGKILL) != 0
    assert wait_for(lambda: readiness(leader) == "WaitingForPods")
    follower = start_worker(*group, "--pod-index", "1")
    assert wait_for(lambda: readiness(leader) == readiness(follower) == "Asleep")
    tell(leader, "/internal/wake")
    assert wait_for(lambda: readiness(leader) == "")
    answer = leader.client().chat.completions.create(model=NAME, messages=ASK)
    assert answer.choices[0].message.content == COUNTED
    tell(leader, "/internal/sleep")
    assert wait_for(lambda: readiness(leader) == "Asleep")
    assert leader.stop(signal.SIGTERM) == 0
    assert follower.stop(signal.SIGTERM) == 0
