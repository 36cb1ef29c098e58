"""What is measured: a running operator that makes pods, ours or another. The phases know no more of it."""

from typing import Protocol

# An object has GROUPS groups of PODS pods: a leader and a worker. Of an operator without groups, as many pods.
GROUPS = 5
PODS = 2


class Subject(Protocol):
    name: str
    resource: tuple[str, str]  # of its objects, as api.collection takes it
    users: tuple[str, ...]  # as whom the API server knows it: these requests are what it costs

    def pids(self) -> list[int]:
        """Of its replicas."""

    def make(self, namespace: str, name: str) -> dict:
        """An object, to be created. Names have no dashes, so that `<name>-...` says whose a child is."""

    def grown(self) -> dict:
        """The merge patch by which an object gets one group's pods more."""

    def is_ready(self, one: dict) -> bool:
        """Whether an object that was read says that all of its pods are ready."""


def has(one: dict, condition: str) -> bool:
    """Whether the condition of an object is true."""
    found = one.get("status", {}).get("conditions", [])
    return any(c["type"] == condition and c["status"] == "True" for c in found)
