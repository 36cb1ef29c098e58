"""The operator with rights in one namespace only (`watchNamespace`)."""

import pytest
from kubernetes import client

from support.installation import CHART, NAMESPACE, install, install_present, uninstall
from support.load import Load
from support.model import Model


@pytest.fixture
def operator_of_one(env, local_only, operator, namespace):
    """In the place of the operator of all namespaces, which is back afterwards."""
    uninstall(env)
    install(env, CHART, watchNamespace=namespace)
    yield namespace
    uninstall(env)
    install_present(env)


def test_it_serves_its_namespace_and_may_nothing_elsewhere(env, operator_of_one, make_namespace, make_model):
    elsewhere = Model(env, make_namespace(), "elsewhere")
    elsewhere.apply()
    model = make_model("here")
    model.apply()
    model.wait_settled(2)
    with Load(env, model) as load:
        model.patch_spec({"engine": {"maxNumSeqs": 5}})
        model.wait_settled(2)
        model.scale(1)
        model.wait_settled(1)
    load.assert_no_failures()
    assert elsewhere.get()["status"] == {"observedGeneration": -1} and not elsewhere.pods()

    account = client.CoreV1Api().list_namespaced_pod(
        NAMESPACE, label_selector="app.kubernetes.io/name=deepseek-operator").items[0].spec.service_account_name

    def may(verb: str, what: str, *where: str) -> bool:
        done = env.run(env.kubectl, "auth", "can-i", verb, what, *where,
                       f"--as=system:serviceaccount:{NAMESPACE}:{account}", check=False)
        return done.stdout.strip() == "yes"

    assert may("create", "pods", "-n", operator_of_one)
    assert not may("create", "pods", "-n", elsewhere.namespace)
    assert not may("list", "pods", "-A") and not may("list", "nodes")
