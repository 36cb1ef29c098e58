"""The worker of tests/api, for clients of other makers.

It needs .local/sdk-venv (scripts/sdk-venv); without the packages these tests are skipped, unless
DSM_SDK_TESTS=required says that they must run.
"""

import importlib.util
import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEEDED = ("anthropic", "langchain_openai", "openai", "schemathesis")

missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if missing and os.environ.get("DSM_SDK_TESTS") == "required":
    pytest.exit(f"tests/sdk needs {', '.join(missing)}: run scripts/sdk-venv", 2)
collect_ignore_glob = ["test_*.py"] if missing else []

_spec = importlib.util.spec_from_file_location("dsm_api_conftest", ROOT / "tests" / "api" / "conftest.py")
_api = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _api
_spec.loader.exec_module(_api)

MODEL_NAME = _api.NAME


@pytest.fixture(scope="session")
def worker():
    running = _api.Worker("--max-num-seqs", "8").ready()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def tool_worker():
    """The same model behind a template that has tools. It was never taught them, so its calls are forced ones."""
    running = _api.Worker("--max-num-seqs", "8", "--chat-template", "deepseek-v3.1").ready()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def model():
    return MODEL_NAME
