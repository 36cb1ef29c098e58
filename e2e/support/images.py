"""Images of the worker that only some tests need."""

from pathlib import Path

import pytest

from support.environment import Environment


def load_image(env: Environment, name: str, archive: Path, command: str) -> str:
    """Puts the image into the cluster and returns its name; without one skips, and says which command has it."""
    if not env.cluster_ctl or not name:
        pytest.skip(f"needs a cluster of its own and an image: {command}")
    env.ctl("load-image", str(archive), timeout=600)
    return name
