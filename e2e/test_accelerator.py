"""A model on GPUs, on nodes that only say that they have some: what its pods ask for, where they go, what is said without."""

import json

import pytest
from kubernetes import client
from support.environment import CUDA_ARCHIVE
from support.images import load_image
from support.installation import GPU_RUNTIME_CLASS
from support.load import ask
from support.wait import until

GPU = "nvidia.com/gpu"
PRODUCT_LABEL, PRODUCT = "nvidia.com/gpu.product", "NVIDIA-Test-1GB"


@pytest.fixture
def gpu_node(env, gpu_runtime):
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
    assert model.pods()[0].spec.runtime_class_name == GPU_RUNTIME_CLASS
    container = model.pods()[0].spec.containers[0]
    assert container.resources.limits[GPU] == container.resources.requests[GPU] == "1"
    assert container.args[-2:] == ["--device", "cuda"]
    # This image has no CUDA: what the worker says of that is what the model says.
    until("the worker's words", lambda: any(
        group["reason"] == "DeviceError" and "--device is cuda" in group["message"]
        for group in model.get()["status"]["groups"]), 90)


@pytest.fixture(scope="module")
def cuda_image(env):
    """The worker's image for GPUs, on every node: `make e2e-cuda-image`."""
    return load_image(env, env.cuda_image, CUDA_ARCHIVE, "make e2e-cuda-image")


def test_the_cuda_image_computes_on_cpus_with_the_same_bits(env, namespace, make_model, cuda_image):
    shape = {"replicas": 1, "parallelism": {"tensor": 2, "ranksPerPod": 1}}
    models = [make_model("plain", shape), make_model("for-gpus", {**shape, "image": cuda_image})]
    for model in models:
        model.apply()
    for model in models:
        model.wait_settled(1)
    plain, answer = (ask(env, model, "What is the capital of France?", logprobs=True, top_logprobs=20)["choices"][0] for model in models)
    assert "Paris" in answer["message"]["content"]
    assert answer == plain

    # What the worker opens where a GPU is, and the driver does not bring.
    pod = models[1].pods()[0].metadata.name
    libraries = env.k("exec", pod, "-n", namespace, "--", "/sbin/ldconfig", "-p")
    assert "libnccl.so.2 " in libraries and "libcublasLt.so.13 " in libraries


def test_the_cuda_image_names_the_driver_that_is_not_there(env, namespace, make_model, gpu_node, cuda_image):
    _, give_gpus = gpu_node
    give_gpus(1)
    model = make_model("on-no-gpu", {
        "replicas": 1, "image": cuda_image, "parallelism": {"tensor": 1, "ranksPerPod": 1},
        "accelerator": {"resource": GPU, "product": [PRODUCT]}})
    model.apply()
    until("the worker's words", lambda: any(
        group["reason"] == "DeviceError" and "no driver for CUDA 13" in group["message"]
        for group in model.get().get("status", {}).get("groups", [])), 90)
