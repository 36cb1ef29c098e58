"""dsmctl drain: groups that are asked to go, and nodes that are emptied, under traffic."""

from support.load import Load
from support.wait import until


def groups_of(model) -> set[str]:
    return {pod.metadata.name.rpartition("-")[0] for pod in model.pods()}


def test_a_group_is_moved_without_a_failed_request(env, namespace, make_model, dsmctl):
    model = make_model("asked")
    model.apply()
    spec = model.wait_settled(2)["spec"]
    before = groups_of(model)
    group = sorted(before)[0]
    wrong = dsmctl("drain", "asked", "7", check=False)
    assert wrong.returncode == 1 and all(name in wrong.stderr for name in before)
    with Load(env, model) as load:
        said = dsmctl("drain", "asked", group.rpartition("-")[2], "--wait", "--timeout", "240s")
        assert f"{group}: Ready, GroupDraining: a drain is asked for" in said
        assert said.splitlines()[-1] == f"{group}: has gone"
        model.wait_settled(2)
    load.assert_no_failures()
    after = groups_of(model)
    assert group not in after and len(after) == 2 and len(after & before) == 1
    assert model.get()["spec"] == spec


def test_a_group_without_room_elsewhere_stays_and_the_drain_is_taken_back(env, namespace, make_model, dsmctl):
    model = make_model("stuck")
    model.apply()
    model.wait_settled(2)
    group = sorted(groups_of(model))[0]
    serving = {pod.metadata.uid for pod in model.pods()}
    env.k("create", "quota", "pods", "-n", namespace, "--hard=pods=4")
    with Load(env, model) as load:
        dsmctl("drain", "stuck", group)
        until("a blocked drain", lambda: model.condition("Degraded")["reason"] == "DrainBlocked", 120)
        late = dsmctl("drain", "stuck", group, "--timeout", "2s", check=False)
        assert late.returncode == 1 and "DrainBlocked" in late.stderr and "exceeded quota" in late.stderr
        assert model.condition("Ready")["status"] == "True"
        dsmctl("drain", "stuck", group, "--cancel")
        until("a model that is well again", lambda: model.condition("Degraded")["status"] == "False", 60)
        model.wait_settled(2)
    load.assert_no_failures()
    assert {pod.metadata.uid for pod in model.pods()} == serving


def test_a_node_is_emptied_without_a_failed_request(env, model_on_one_of_two_nodes, dsmctl):
    model, free, full = model_on_one_of_two_nodes
    with Load(env, model) as load:
        try:
            said = dsmctl("drain", "--node", full, "--timeout", "280s")
            model.wait_settled(2)
        finally:
            dsmctl("drain", "--node", full, "--cancel")
    load.assert_no_failures()
    assert {pod.spec.node_name for pod in model.pods()} == {free}
    assert said.count(": has gone") >= 2 and f"no pod of a model is on node {full}" in said
