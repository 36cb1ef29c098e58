"""A model on GPUs, on nodes that only say that they have some: what its pods ask for, where they go, what is said without."""

import json

import pytest
from kubernetes import client
from support.wait import until

GPU = "nvidia.com/gpu"
PRODUCT_LABEL, PRODUCT = "nvidia.com/gpu.product", "NVIDIA-Test-1GB"


@pytest.fixture
def gpu_node(env):
    """A node of a product, without GPUs at first; answers with its name and what gives it some."""
    core = client.CoreV1Api()
    name = sorted(node.metadata.name for node in core.list_node().items)[-1]
    path = "/status/{}/" + GPU.replace("/", "~1")

    def patch_status(operation: dict) -> None:
        patch = [{**operation, "path": path.format(part)} for part in ("capacity", "allocatable")]
        env.k("patch", "node", name, "--subresource=status", "--type=json", "-p", json.dumps(patch))

    env.k("label", "node", name, f"{PRODUCT_LABEL}={PRODUCT}")
    yield name, lambda count: patch_status({"op": "add", "value": str(count)})
    env.k("label", "node", name, f"{PRODUCT_LABEL}-")
    if GPU in core.read_node(name).status.capacity:
        patch_status({"op": "remove"})


def test_pods_go_where_the_gpus_are_and_wait_where_there_are_none(env, namespace, make_model, gpu_node):
    node, give_gpus = gpu_node
    model = make_model("on-gpus", {
        "replicas": 1, "image": env.worker_image,
        "accelerator": {"resource": GPU, "product": [PRODUCT]}})
    model.apply()
    model.wait_told(f"Insufficient {GPU}", 60)
    assert model.condition("Ready")["reason"] == "WaitingForGPU"
    assert "nodes are available" in model.condition("Ready")["message"], "the scheduler's own words"

    give_gpus(2)
    until("two pods on the node with GPUs",
          lambda: [pod.spec.node_name for pod in model.pods()] == [node, node], 60)
    container = model.pods()[0].spec.containers[0]
    assert container.resources.limits[GPU] == container.resources.requests[GPU] == "1"
    assert container.args[-2:] == ["--device", "cuda"]
    # This image has no CUDA: what the worker says of that is what the model says.
    until("the worker's words", lambda: any(
        group["reason"] == "DeviceError" and "--device is cuda" in group["message"]
        for group in model.get()["status"]["groups"]), 90)
