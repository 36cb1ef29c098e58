"""scripts/gpu-tests, gpu-sanitizer and gpu-bench run what a bundle holds: with programs in place of those that need a GPU."""

import os
import pathlib
import re
import shutil
import stat
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Answers as a GoogleTest program does; each run of a test is a line of ran.log.
GOOGLE_TEST = """#!/bin/bash
case "$*" in
  *--gtest_list_tests*) printf 'on a GPU\\nProducts.\\n  AreNear\\n  AreExact\\nNccl/All.\\n  Adds/0  # GetParam() = 1\\n' ;;
  *--gtest_filter=-) ;;
  *) echo "$(basename "$0") ${@: -1}" >>ran.log
     case "$*" in
       *Nccl*) printf 'nccl_gpu_test.cc:24: Skipped\\nno libnccl.so.2\\n[  PASSED  ] 0 tests.\\n[  SKIPPED ] 1 test.\\n' ;;
       *AreExact*) BODY ;;
       *) echo '[  PASSED  ] 1 test.' ;;
     esac ;;
esac
"""
PASSES = "echo '[  PASSED  ] 1 test.'"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "scripts").mkdir()
    for name in ("gpu-tests", "gpu-sanitizer", "gpu-bench", "gpu-parts.sh"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    write(tmp_path / "gpu-tests/op_gpu_test", GOOGLE_TEST.replace("BODY", PASSES))
    return tmp_path


def run(bundle, script, **variables):
    done = subprocess.run(
        [bundle / "scripts" / script, "run"], capture_output=True, text=True, timeout=60, env=os.environ | variables
    )
    return done.returncode, done.stdout + done.stderr


def ran(bundle):
    log = bundle / "ran.log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_skipped_tests_are_counted_with_their_reason_and_are_not_passed(bundle):
    code, text = run(bundle, "gpu-tests")
    assert code == 0, text
    assert "skipped op_gpu_test Nccl/All.Adds/0: no libnccl.so.2" in text
    assert "gpu-tests: 2 passed, 1 skipped" in text


def test_a_run_goes_on_where_the_last_one_ended(bundle):
    write(bundle / "gpu-tests/op_gpu_test", GOOGLE_TEST.replace("BODY", "test -e mended && " + PASSES))
    assert run(bundle, "gpu-tests")[0] == 1
    assert len(ran(bundle)) == 2
    (bundle / "mended").touch()
    code, text = run(bundle, "gpu-tests")
    assert code == 0 and "2 passed, 1 skipped" in text
    assert ran(bundle) == ["op_gpu_test --gtest_filter=Products.AreExact", "op_gpu_test --gtest_filter=Nccl/All.Adds/0"]


def test_what_passed_with_other_programs_is_run_again(bundle):
    write(bundle / "gpu-tests/op_gpu_test", GOOGLE_TEST.replace("BODY", "exit 1"))
    assert run(bundle, "gpu-tests")[0] == 1
    ran(bundle)
    write(bundle / "gpu-tests/op_gpu_test", GOOGLE_TEST.replace("BODY", PASSES))
    assert run(bundle, "gpu-tests")[0] == 0
    assert len(ran(bundle)) == 3


def test_a_filter_that_names_no_test_is_an_error(bundle):
    write(bundle / "gpu-tests/op_gpu_test", GOOGLE_TEST.replace("BODY", "echo '[  PASSED  ] 0 tests.'"))
    code, text = run(bundle, "gpu-tests")
    assert code == 1 and "op_gpu_test Products.AreExact: no test ran" in text


def test_no_part_is_begun_or_goes_on_after_its_time(bundle):
    code, text = run(bundle, "gpu-tests", GPU_TESTS_SECONDS="0")
    assert code == 75 and "run it again for the rest" in text
    assert ran(bundle) == []
    # Shorter runs: a test that hangs ends with the run, and is an error where it had all of it.
    parts = bundle / "scripts/gpu-parts.sh"
    parts.write_text(re.sub("most_seconds=.*", "most_seconds=2", parts.read_text()))
    write(bundle / "gpu-tests/op_gpu_test", GOOGLE_TEST.replace("BODY", "sleep 50"))
    code, text = run(bundle, "gpu-tests")
    assert code == 1 and "takes longer than the 2 s of a run" in text


def test_the_tools_of_the_sanitizer_share_one_deadline(bundle):
    write(
        bundle / "sanitizer/compute-sanitizer",
        '#!/bin/bash\necho "$2" >>tools.log\nwhile [[ $1 == --* ]]; do shift 2; done\nexec "$@"\n',
    )
    # Under the tools its ranks would wait for ever.
    write(bundle / "gpu-tests/device_peer_sum_gpu_test", GOOGLE_TEST.replace("BODY", "exit 1"))
    code, text = run(bundle, "gpu-sanitizer")
    assert code == 0, text
    tools = (bundle / "tools.log").read_text().splitlines()
    assert tools == ["memcheck"] * 3 + ["racecheck"] * 3 + ["synccheck"] * 3
    # A run that began long ago: no tool begins anything.
    (bundle / "tools.log").unlink()
    assert run(bundle, "gpu-sanitizer", GPU_PARTS_SINCE="1")[0] == 75
    assert not (bundle / "tools.log").exists()


BENCH = """#!/bin/bash
case $1 in
  parts) printf 'kernels:a\\nmodel:a\\n' ;;
  table) cat ;;
  *) echo "$1" >>ran.log; BODY; echo "line of $1 NUMBER" ;;
esac
"""


def test_lines_of_another_benchmark_program_are_not_kept(bundle):
    def program(body, number):
        write(bundle / "gpu-bench/gpu-bench", BENCH.replace("BODY", body).replace("NUMBER", number))

    program("[[ $1 != model:a ]] || exit 1", "1")
    assert run(bundle, "gpu-bench")[0] == 1
    assert ran(bundle) == ["kernels:a", "model:a"]
    assert run(bundle, "gpu-bench")[0] == 1
    assert ran(bundle) == ["model:a"]
    program("true", "2")
    code, text = run(bundle, "gpu-bench")
    assert code == 0 and "line of kernels:a 2\nline of model:a 2\n" in text
    assert "line of kernels:a 1" not in text
