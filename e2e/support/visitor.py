"""A pod from which connections are tried."""

import json

from support.environment import Environment

# Prints one word for each address, so that a command that could not be run is no closed port.
TRY = 'for to; do if timeout 3 bash -c "exec 3<>/dev/tcp/$to" 2>/dev/null; then echo open; else echo closed; fi; done'


def opened(output: str, targets: list[tuple[str, int]]) -> dict[tuple[str, int], bool]:
    words = output.split()
    assert len(words) == len(targets) and set(words) <= {"open", "closed"}, output
    return {target: word == "open" for target, word in zip(targets, words)}


def command_for(targets: list[tuple[str, int]]) -> list[str]:
    return ["bash", "-c", TRY, "try", *(f"{address}/{port}" for address, port in targets)]


class Visitor:
    """A pod that waits, from the image of the workers, as Pod Security `restricted` wants it. Or one that is there."""

    def __init__(self, env: Environment, namespace: str, name: str):
        self.env, self.namespace, self.name = env, namespace, name

    def start(self) -> "Visitor":
        container = {"name": "visitor", "image": self.env.worker_image, "imagePullPolicy": "IfNotPresent",
                     "command": ["sleep", "3600"],
                     "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}
        spec = {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0, "containers": [container],
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}}
        self.env.k("apply", "-n", self.namespace, "-f", "-", stdin=json.dumps(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name}, "spec": spec}))
        return self

    def wait_ready(self) -> None:
        self.env.k("wait", "--for=condition=Ready", f"pod/{self.name}", "-n", self.namespace, "--timeout=60s")

    def reaches(self, targets: list[tuple[str, int]]) -> dict[tuple[str, int], bool]:
        """Which of these addresses and ports take a TCP connection from the pod."""
        return opened(self.env.k("exec", self.name, "-n", self.namespace, "--", *command_for(targets)), targets)
