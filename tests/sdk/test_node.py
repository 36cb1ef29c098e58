"""OpenAI's client for Node against the worker."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
MODULES = HERE.parents[1] / ".local" / "sdk-node"
COUNTED = ", ".join(str(i) for i in range(57, 69))


@pytest.fixture(scope="module")
def script():
    if shutil.which("node") is None:
        pytest.skip("there is no Node here")
    if not (MODULES / "node_modules" / "openai").is_dir():
        if os.environ.get("DSM_SDK_TESTS") == "required":
            pytest.fail("the packages for Node are missing: run scripts/sdk-venv")
        pytest.skip("the packages for Node are missing (scripts/sdk-venv)")
    # Node looks for packages beside the script.
    shutil.copy(HERE / "node_client.mjs", MODULES / "node_client.mjs")
    return MODULES / "node_client.mjs"


def test_chat_stream_and_responses(script, worker, model):
    done = subprocess.run(["node", script, worker.url, model], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["whole"] == said["streamed"] == said["response"] == COUNTED
    assert said["usage"]["completion_tokens"] > 0
    assert said["lastEvent"] == "response.completed"
    assert said["refused"] == {"status": 400, "param": "temperature"}
