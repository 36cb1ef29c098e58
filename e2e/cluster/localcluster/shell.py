"""Running other programs, with errors that say which one failed and why."""

import os
import subprocess
import sys
import time

# When the script that called us began, so that its lines of progress and ours go on from each other.
_started = float(os.environ.setdefault("DSM_STARTED", str(int(time.time()))))


class Failure(Exception):
    """What went wrong and what to do, in one sentence; the top level prints it."""


def say(text: str) -> None:
    print(f"[{time.time() - _started:3.0f}s] {text}", file=sys.stderr, flush=True)


def run(*argv: object, check: bool = True, stdin: str | None = None) -> str:
    command = [str(a) for a in argv]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise Failure(f"'{' '.join(command)}' failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def succeeds(*argv: object) -> bool:
    return subprocess.run([str(a) for a in argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def wait_for(what: str, condition, seconds: float, hint: str = "") -> None:
    """Asks until the condition is true; the pause between two questions grows to a quarter second."""
    end = time.monotonic() + seconds
    pause = 0.05
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"{what} did not happen within {seconds:.0f} s{'; ' + hint if hint else ''}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)
