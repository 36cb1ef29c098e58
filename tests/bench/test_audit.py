"""What the benchmark of the operator reads from the API server's audit log."""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

from scale import audit  # noqa: E402

EDITOR, OPERATOR = "admin", "system:serviceaccount:deepseek-system:deepseek-operator"
HELPER = "system:serviceaccount:kube-system:statefulset-controller"


def line(user=OPERATOR, verb="create", resource="pods", name="m0-1a2b3c4d-0-0", begin="10.000000", end="10.004000",
         code=201, **about):
    return json.dumps({
        "verb": verb, "user": {"username": user}, "responseStatus": {"code": code},
        "objectRef": {"resource": resource, "namespace": "team-0", "name": name, **about},
        "requestReceivedTimestamp": f"2026-01-02T03:04:{begin}Z", "stageTimestamp": f"2026-01-02T03:04:{end}Z",
    }).encode() + b"\n"


def requests(*lines):
    return [audit.parse(one) for one in lines]


def test_a_line_says_who_asked_for_what_and_when():
    one = audit.parse(line(resource="deepseekmodels", verb="patch", name="m0", code=200, subresource="status"))
    assert (one.user, one.verb, one.resource, one.namespace, one.name, one.code) == (
        OPERATOR, "patch", "deepseekmodels/status", "team-0", "m0", 200)
    assert round(one.end - one.begin, 6) == 0.004
    assert one.is_write


def test_a_request_about_no_object_is_left_out():
    assert audit.parse(b'{"verb": "get", "user": {"username": "x"}, "requestURI": "/version"}') is None


def test_children_and_events_belong_to_the_object_whose_name_they_begin_with():
    names = ("m7", "m7-1a2b3c4d-0-1", "m7-internal", "m7.18a3c")
    assert {audit.parse(line(name=name)).owner for name in names} == {"m7"}


def test_only_whole_lines_are_read_and_each_once(tmp_path):
    path = tmp_path / "audit.log"
    log = audit.Log(path)
    assert log.read() == []
    path.write_bytes(line(name="m0") + line(name="m1")[:20])
    assert [r.name for r in log.read()] == ["m0"]
    path.write_bytes(line(name="m0") + line(name="m1"))
    assert [r.name for r in log.read()] == ["m1"]
    assert log.read() == []


def test_renewing_the_lease_counts_as_nothing():
    seen = requests(line(resource="leases", verb="update", name="deepseek-operator"), line(verb="get"), line())
    assert [r.verb for r in audit.of_users(seen, (OPERATOR,))] == ["get", "create"]
    assert [r.verb for r in audit.writes(seen, (OPERATOR,))] == ["create"]
    assert audit.writes(seen, ("somebody",)) == []


def test_an_update_that_stores_nothing_is_asked_for_but_no_write():
    tried = json.loads(line(verb="update", resource="deployments", name="m0-predictor", code=200))
    tried["requestURI"] = "/apis/apps/v1/namespaces/team-0/deployments/m0-predictor?dryRun=All"
    seen = requests(json.dumps(tried).encode(), line(verb="update", resource="deployments", name="m0-predictor"))
    assert audit.by_kind(audit.of_users(seen, (OPERATOR,))) == {"dry-run update deployments": 1,
                                                               "update deployments": 1}
    assert [r.verb for r in audit.writes(seen, (OPERATOR,))] == ["update"]


def test_what_one_costs_is_what_all_of_its_users_ask_for():
    seen = requests(line(verb="patch", resource="statefulsets"), line(user=HELPER), line(user="somebody"))
    assert [r.user for r in audit.writes(seen, (OPERATOR, HELPER))] == [OPERATOR, HELPER]


def test_the_log_has_all_of_the_users_and_what_the_editor_makes():
    rules = audit.policy((OPERATOR, HELPER), EDITOR, [("a.io/v1", "as"), ("b.io/v2", "bs")])["rules"]
    assert rules[1] == {"level": "Metadata", "users": [OPERATOR, HELPER]}
    assert rules[2]["users"] == [EDITOR]
    assert rules[2]["resources"] == [{"group": "a.io", "resources": ["as"]}, {"group": "b.io", "resources": ["bs"]}]
    assert rules[3] == {"level": "None"}


def test_a_pod_that_the_api_server_names_belongs_to_the_object_that_its_request_names():
    made = json.loads(line(user="system:serviceaccount:kube-system:replicaset-controller"))
    del made["objectRef"]["name"]
    assert audit.parse(json.dumps(made).encode()).owner == ""
    made["requestObject"] = {"kind": "Pod", "metadata": {"generateName": "m7-predictor-6889c77fcf-"}}
    assert audit.parse(json.dumps(made).encode()).owner == "m7"
    bodies = audit.policy((OPERATOR,), EDITOR, [("a.io/v1", "as")])["rules"][0]
    assert (bodies["level"], bodies["users"], bodies["verbs"]) == ("Request", [made["user"]["username"]], ["create"])


def test_pods_that_were_refused_are_not_made():
    assert len(audit.created_pods(requests(line(), line(code=409), line(verb="get", code=200)))) == 1


def test_a_reaction_is_the_first_write_of_the_kind_after_the_edit_of_its_own_object():
    seen = requests(
        line(begin="09.000000"),  # before the edit
        line(user=EDITOR, resource="deepseekmodels", verb="patch", name="m0", begin="10.000000"),
        line(name="m1-1a2b3c4d-5-0", begin="10.005000"),  # another's
        line(resource="deepseekmodels", subresource="status", verb="patch", name="m0", begin="10.010000"),  # no pod
        line(begin="10.020000"),
        line(begin="10.030000"),  # not the first
    )
    found = audit.reactions(seen, EDITOR, "deepseekmodels", (OPERATOR,), "pods")
    assert [round(seconds, 6) for seconds in found] == [0.02]


def test_a_reaction_may_be_of_any_kind_and_anothers_work_for_it():
    seen = requests(
        line(user=EDITOR, resource="leaderworkersets", verb="patch", name="m0", begin="10.000000"),
        line(resource="statefulsets", verb="patch", name="m0", code=409, begin="10.010000"),  # refused
        line(resource="statefulsets", verb="patch", name="m0", code=200, begin="10.020000"),
        line(user=HELPER, name="m0-5", begin="10.050000"),
    )
    first, pod = (audit.reactions(seen, EDITOR, "leaderworkersets", (OPERATOR, HELPER), *written)
                  for written in ((), ("pods",)))
    assert [round(seconds, 6) for seconds in first + pod] == [0.02, 0.05]


def test_a_reaction_is_found_though_the_log_is_in_the_order_of_the_answers():
    edit = line(user=EDITOR, resource="deepseekmodels", verb="patch", name="m0", begin="10.000000", end="10.050000")
    found = audit.reactions(requests(line(begin="10.020000", end="10.030000"), edit), EDITOR, "deepseekmodels",
                            (OPERATOR,), "pods")
    assert [round(seconds, 6) for seconds in found] == [0.02]


def test_a_window_is_as_long_as_it_says():
    assert audit.most_within([], 5) == 0
    assert audit.most_within([0, 5, 10], 5) == 1
    assert audit.most_within([10, 0, 4.9, 5.1], 5) == 2


def test_a_percentile_is_one_of_the_values():
    assert audit.percentile(range(1, 101), 99) == 99
    assert audit.percentile([3, 1, 2], 50) == 2
    assert audit.percentile([7], 99) == 7


def test_the_api_servers_own_time_is_that_of_the_editors_patches():
    seen = requests(
        line(user="admin", verb="patch", resource="deepseekmodels", name="m0", begin="01.000000", end="01.250000"),
        line(verb="patch", resource="deepseekmodels", name="m0", begin="02.000000", end="03.000000"),
        line(user="admin", verb="create", resource="deepseekmodels", name="m1", begin="04.000000", end="05.000000"))
    assert audit.durations(seen, "admin", "deepseekmodels") == [0.25]
