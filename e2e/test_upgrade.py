"""From the previous chart to the present one and away again, under traffic."""

import json
from pathlib import Path

import pytest
import yaml
from kubernetes import client
from support.environment import ROOT
from support.installation import install, install_present, uninstall
from support.load import Load

# As `helm package` made it; see CONTRIBUTING.md.
(PREVIOUS,) = Path(__file__).parent.joinpath("previous-chart").glob("*.tgz")
CRDS = {yaml.safe_load(file.read_text())["metadata"]["name"]: file for file in sorted((ROOT / "crds").glob("*.yaml"))}


@pytest.fixture
def previous_operator(env, local_only, operator, second_worker_image):
    """An installation of the previous chart, with nothing of the present one: its CRDs go, too, and so the cluster must be
    nobody else's. The present operator is back afterwards."""
    uninstall(env)
    env.k("delete", "crd", *CRDS, "--timeout=120s", timeout=150)
    # Another worker image, as another release has.
    install(env, PREVIOUS, **{"image.worker": second_worker_image})
    yield
    install_present(env)


def test_an_upgrade_of_the_chart_touches_no_model(env, namespace, make_model, previous_operator, second_worker_image):
    def crds() -> set[str]:
        there = client.ApiextensionsV1Api().list_custom_resource_definition().items
        return {crd.metadata.name for crd in there} & set(CRDS)

    def outdated() -> list[str]:
        """CRDs that are not what crds/ says."""
        return [name for name, file in CRDS.items() if env.run(
            env.kubectl, "diff", "--server-side", "--force-conflicts", "-f", str(file), check=False).returncode != 0]

    def uids() -> set[str]:
        return {pod.metadata.uid for pod in model.pods()}

    changed = outdated()
    # The program is the present one already, and an API server that does not know a field of its status takes none of it.
    # Helm brings CRDs before programs, too.
    for name in crds():
        env.k("apply", "--server-side", "--force-conflicts", "-f", str(CRDS[name]))
    model = make_model("kept")
    model.apply()
    model.wait_settled(2)
    serving = uids()
    with Load(env, model) as load:
        install_present(env)
        assert crds() == set(CRDS) and not outdated()
        load.notes.append(f"{len(changed)} of {len(CRDS)} CRDs changed")
        model.wait_settled(2)
        assert uids() == serving
        # The new operator acts.
        model.scale(1)
        model.wait_settled(1)
        left = uids()
        assert left < serving

        uninstall(env)
        assert crds() == set(CRDS)
        # An APIService without a server behind it would keep every namespace from ending.
        services = json.loads(env.k("get", "apiservices", "-o", "json"))["items"]
        assert not [one for one in services if one["metadata"]["name"].endswith(".metrics.k8s.io")]
        env.k("create", "namespace", "e2e-short-lived")
        env.k("delete", "namespace", "e2e-short-lived", "--timeout=30s")
        assert model.get()["spec"]["replicas"] == 1
        # One that comes back takes the model as it is.
        install_present(env)
        model.scale(2)
        model.wait_settled(2)
        assert left < uids()
    # The worker image is kept with the model's revision.
    assert {c.image for pod in model.pods() for c in pod.spec.containers} == {second_worker_image}
    load.assert_no_failures()
