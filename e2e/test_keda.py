"""KEDA's external scaler of the running operator, asked over gRPC as KEDA asks it, for a model under load."""

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from itertools import pairwise

import grpc
import pytest
from kubernetes import client
from support.environment import ROOT
from support.installation import KEDA_PORT, RELEASE
from support.load import Load
from support.wait import until

sys.path.insert(0, str(ROOT / "operator" / "keda"))
messages, services = grpc.protos_and_services("externalscaler.proto")

# One request at a time, and that slowly, so that a few clients make a queue.
SPEC = {"template": {"resources": {"limits": {"cpu": "100m"}}},
        "parallelism": {"tensor": 1}, "replicas": 1, "engine": {"maxNumSeqs": 1}}


@contextmanager
def scaler_at(env, namespace: str, target: str):
    """The scaler behind a Service or pod of the operator."""
    with subprocess.Popen([env.kubectl, "port-forward", "-n", namespace, target, f":{KEDA_PORT}"], text=True,
                          stdout=subprocess.PIPE, env={**os.environ, "KUBECONFIG": env.kubeconfig}) as forward:
        try:
            said = forward.stdout.readline()  # Forwarding from 127.0.0.1:40123 -> 9090
            assert said, f"no port of {target} is forwarded"
            with grpc.insecure_channel(said.split()[2], options=[("grpc.enable_http_proxy", 0)]) as channel:
                yield services.ExternalScalerStub(channel)
        finally:
            forward.terminate()


@pytest.fixture
def scaler(env, operator):
    with scaler_at(env, operator, f"service/{RELEASE}-keda") as one:
        yield one


def trigger(model, **metadata: str):
    """As KEDA makes it of a ScaledObject's trigger."""
    return messages.ScaledObjectRef(name=model.name, namespace=model.namespace, scalerMetadata={
        "scalerAddress": f"{RELEASE}-keda:{KEDA_PORT}", "model": model.name, **metadata})


def known(call, request):
    """The answer to a call; a number that is not known at this moment is looked for again by until()."""
    try:
        return call(request, timeout=10)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            raise LookupError(error.details()) from error
        raise


def refusal(call, request) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as refused:
        call(request, timeout=10)
    return refused.value.code(), refused.value.details()


class Watch(threading.Thread):
    """What StreamIsActive says, in its order."""

    def __init__(self, scaler, request):
        super().__init__(daemon=True)
        self.call = scaler.StreamIsActive(request)
        self.said: list[bool] = []

    def run(self) -> None:
        try:
            for answer in self.call:
                self.said.append(answer.result)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.CANCELLED, error

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *exception) -> None:
        self.call.cancel()
        self.join(10)


def test_keda_is_told_of_a_model_under_load(env, operator, make_model, scaler):
    model = make_model("driven", SPEC)
    model.apply()
    model.wait_settled(1)
    queue = trigger(model, target="2")

    def depth() -> float:
        request = messages.GetMetricsRequest(scaledObjectRef=queue, metricName="dsm_queue_depth")
        (value,) = known(scaler.GetMetrics, request).metricValues
        assert value.metricName == "dsm_queue_depth"
        return value.metricValueFloat

    (spec,) = scaler.GetMetricSpec(queue, timeout=10).metricSpecs
    assert (spec.metricName, spec.targetSizeFloat) == ("dsm_queue_depth", 2)
    until("an idle model", lambda: known(scaler.IsActive, queue).result is False and depth() == 0, 30)
    with Watch(scaler, queue) as watch:
        until("a first word", lambda: watch.said == [False], 60)
        with Load(env, model, threads=6) as load:
            until("a queue", lambda: depth() > 2 and known(scaler.IsActive, queue).result, 60)
            until("word of it", lambda: watch.said[-1], 60)
            # Not before more wait than that.
            assert known(scaler.IsActive, trigger(model, activation="1000")).result is False
            # Whichever replica is asked.
            pods = client.CoreV1Api().list_namespaced_pod(
                operator, label_selector="app.kubernetes.io/name=deepseek-operator").items
            assert len(pods) == 2
            for pod in pods:
                with scaler_at(env, operator, f"pod/{pod.metadata.name}") as one:
                    until(f"the same of {pod.metadata.name}", lambda s=one: known(s.IsActive, queue).result, 60)
        until("word of the end", lambda: not watch.said[-1], 30)
        until("an idle model again", lambda: depth() == 0 and not known(scaler.IsActive, queue).result, 60)
        # It speaks when something has changed, and only then.
        assert all(one != other for one, other in pairwise(watch.said)), watch.said
    load.assert_no_failures()


def test_keda_is_told_what_is_wrong_with_a_trigger(make_model, scaler):
    nobody = make_model("nobody")
    code, details = refusal(scaler.IsActive, trigger(nobody))
    assert code == grpc.StatusCode.NOT_FOUND and "nobody" in details
    code, details = refusal(scaler.GetMetricSpec, trigger(nobody, metric="cpu"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert 'metadata.metric: is "cpu"; use dsm_queue_depth' in details
