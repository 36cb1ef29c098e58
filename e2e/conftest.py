"""Fixtures: the cluster, the operator installed by its chart, and a namespace of its own for each test."""

import sys
import uuid
from pathlib import Path

import pytest
from kubernetes import client, config

sys.path.insert(0, str(Path(__file__).parent))

from support.environment import Environment  # noqa: E402
from support.installation import GPU_RUNTIME_CLASS, NAMESPACE, install_present  # noqa: E402
from support.load import REPORTS  # noqa: E402
from support.model import Model  # noqa: E402
from support.nodes import cordoned  # noqa: E402
from support.tenant import Tenant  # noqa: E402
from support.wait import until  # noqa: E402


@pytest.fixture(scope="session")
def env() -> Environment:
    environment = Environment.read()
    config.load_kube_config(environment.kubeconfig)
    return environment


@pytest.fixture(scope="session")
def operator(env):
    """The installed operator's namespace."""
    install_present(env)
    return NAMESPACE


@pytest.fixture(scope="session")
def retired_namespaces(env, operator):
    """Namespaces whose deletion has begun. Draining pods take their time, so the next test does not wait for them;
    that every namespace does go away is checked once, at the end."""
    names: list[str] = []
    yield names
    core = client.CoreV1Api()
    until("the end of every namespace of the tests",
          lambda: not set(names) & {n.metadata.name for n in core.list_namespace().items}, 240)


@pytest.fixture
def make_namespace(env, operator, retired_namespaces):
    made: list[str] = []

    def make() -> str:
        made.append(f"e2e-{uuid.uuid4().hex[:8]}")
        client.CoreV1Api().create_namespace({"metadata": {"name": made[-1]}})
        return made[-1]

    yield make
    for name in made:
        env.k("delete", "namespace", name, "--wait=false")
        retired_namespaces.append(name)


@pytest.fixture
def namespace(make_namespace):
    return make_namespace()


@pytest.fixture
def make_model(env, namespace):
    def make(name: str, spec: dict | None = None) -> Model:
        return Model(env, namespace, name, spec)

    return make


@pytest.fixture
def dsmctl(env, namespace):
    """Runs dsmctl in the test's namespace; answers with its standard output, or with everything when check is False."""
    def run(*arguments, stdin=None, check=True):
        done = env.run(env.dsmctl, *arguments, "-n", namespace, stdin=stdin, check=check)
        return done.stdout if check else done

    return run


@pytest.fixture
def two_nodes() -> tuple[str, str]:
    names = sorted(node.metadata.name for node in client.CoreV1Api().list_node().items)
    if len(names) != 2:
        pytest.skip("needs a cluster with two nodes")
    return names[0], names[1]


@pytest.fixture
def model_on_one_of_two_nodes(env, make_model, two_nodes):
    """A model whose groups all run on the second node, and the names of both nodes."""
    model = make_model("mobile", {"placement": {"topologyKey": "kubernetes.io/hostname"}})
    free, full = two_nodes
    with cordoned(env, [free]):
        model.apply()
        model.wait_settled(2)
    assert {pod.spec.node_name for pod in model.pods()} == {full}
    return model, free, full


@pytest.fixture
def make_tenant(env, operator):
    made = []

    def make(spec: dict) -> Tenant:
        made.append(Tenant(env, f"t-{uuid.uuid4().hex[:8]}", spec))
        return made[-1]

    yield make
    for tenant in made:
        tenant.delete()


@pytest.fixture(scope="module")
def gpu_runtime(env):
    """A runtime for GPUs, which is the one that all pods have. A run that was killed may have left one."""
    runtimes = client.NodeV1Api()
    try:
        runtimes.create_runtime_class({"metadata": {"name": GPU_RUNTIME_CLASS}, "handler": "runc"})
    except client.ApiException as error:
        if error.status != 409:
            raise
        if runtimes.read_runtime_class(GPU_RUNTIME_CLASS).handler != "runc":
            pytest.fail(f"RuntimeClass {GPU_RUNTIME_CLASS} is somebody else's")
    yield
    runtimes.delete_runtime_class(GPU_RUNTIME_CLASS)


@pytest.fixture
def local_only(env):
    if not env.cluster_ctl:
        pytest.skip("needs control over the cluster's own processes")


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    """On a failure: what the operator and the pods said."""
    outcome = yield
    report = outcome.get_result()
    if report.when != "call" or not report.failed or "env" not in item.funcargs:
        return
    env = item.funcargs["env"]
    wanted = [("operator log", ["logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=deepseek-operator",
                                "--tail=80", "--prefix"])]
    if "namespace" in item.funcargs:
        namespace = item.funcargs["namespace"]
        wanted += [("objects", ["get", "dsm,pods,svc", "-n", namespace, "-o", "wide"]),
                   ("events", ["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"]),
                   ("worker log", ["logs", "-n", namespace, "-l", "app.kubernetes.io/name=deepseek-worker",
                                   "--tail=40", "--prefix", "--max-log-requests=20"])]
    for title, command in wanted:
        done = env.run(env.kubectl, *command, check=False)
        report.sections.append((title, (done.stdout + done.stderr)[-12000:]))


@pytest.fixture(scope="session")
def second_worker_image(env):
    """The worker image under another name: a change of image without another build."""
    if not env.cluster_ctl:
        pytest.skip("needs to put an image into the cluster")
    name = env.worker_image.rsplit(":", 1)[0] + ":second"
    env.ctl("tag-image", env.worker_image, name)
    return name


def pytest_terminal_summary(terminalreporter):
    """The client requests of every test that ran traffic: how many were answered, and how many failed."""
    if REPORTS:
        terminalreporter.section("client requests under change and faults")
    for test, report in REPORTS:
        examples = f"  {report['examples']}" if report["examples"] else ""
        notes = "".join(f"; {note}" for note in report["notes"])
        terminalreporter.line(f"{test}: {report['ok']} answered, {report['failed']} failed {report['errors'] or ''}, "
                              f"slowest {report['slowest_s']} s{notes}{examples}")
