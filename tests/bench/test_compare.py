"""The table of an operator beside its peers."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "e2e/cluster")]

from scale import compare  # noqa: E402
from scale.compare import Measured, Row  # noqa: E402
from scale.phases import Costs, Edits, Made, Steady  # noqa: E402


def costs(seconds=10.0, kinds=None, users=None, rss=(20.0, 30.0), writes=None, edits=(0.01, 0.02)):
    made = Made(objects=100, pods=1000, seconds=seconds, ready_seconds=2 * seconds,
                kinds={"create pods": 1000} if kinds is None else kinds, users=users or {"system:x:ours": 1000},
                cpu_seconds=3.0, control_plane_cpu_seconds=20.0, rss_mib=list(rss))
    steady = Steady(60.0, writes or {}, 4, [0.5, 0.25], list(rss), list(rss))
    return Costs([made], steady, Edits(list(edits), list(edits), list(edits)))


def row(found, beginning):
    return next(one for one in found if one.what.startswith(beginning))


def test_a_ratio_above_one_says_that_ours_is_better():
    assert Row("seconds", 10, (25,)).cells() == ("seconds", "10.0", "25.0", "2.5")
    assert Row("pods per second", 100, (40,), digits=0, more_is_better=True).cells()[1:] == ("100", "40", "2.5")
    assert Row("seconds", 25, (10,)).cells()[3] == "0.40"
    assert Row("seconds", 1, (1234,)).cells()[3] == "1234"


def test_each_peer_has_its_number_and_its_ratio_to_ours():
    assert Row("seconds", 10, (25, 5)).cells() == ("seconds", "10.0", "25.0", "2.5", "5.0", "0.50")


def test_a_number_has_its_unit_and_its_digits():
    assert Row("memory", 1234.56, (2.0,), "MiB").cells()[1:3] == ("1,234.6 MiB", "2.0 MiB")


def test_nothing_has_no_ratio():
    assert Row("writes", 0, (12,), digits=0).cells() == ("writes", "0", "12", "")
    assert Row("pods per second", 12, (0,), more_is_better=True).cells()[3] == ""


def test_calls_are_those_of_all_users_for_each_pod():
    theirs = costs(kinds={"create pods": 1000, "patch statefulsets": 600}, users={"a:lws": 600, "b:statefulsets": 1000})
    found = row(compare.rows(costs(), [theirs, costs()]), "1,000 pods: API calls per pod")
    assert (found.ours, found.theirs) == (1.0, (1.6, 1.0))
    assert compare.calls(theirs) == "statefulsets 1.00, lws 0.60 (create pods 1.00, patch statefulsets 0.60)"


def test_calls_of_two_parts_are_added_and_rare_ones_are_not_named():
    first, second = costs().made[0], costs(kinds={"create pods": 1000, "get pods": 9}).made[0]
    both = Costs([first, second], costs().steady, costs().edits)
    assert compare.calls(both) == "ours 1.00 (create pods 1.00)"


def test_each_part_is_compared_with_the_same_part():
    first, second = (Costs([costs(seconds=a).made[0], costs(seconds=b).made[0]], costs().steady, costs().edits)
                     for a, b in ((1.0, 2.0), (3.0, 4.0)))
    found = [(one.ours, one.theirs) for one in compare.rows(first, [second]) if "first object received" in one.what]
    assert found == [(1.0, (3.0,)), (2.0, (4.0,))]


def test_memory_is_the_larger_replicas_and_processor_time_that_of_all():
    found = compare.rows(costs(), [costs(rss=(90.0, 15.0), writes={"update statefulsets/status": 2, "patch pods": 1})])
    assert (row(found, "1,000 pods: RSS").ours, row(found, "1,000 pods: RSS").theirs) == (30.0, (90.0,))
    assert row(found, "CPU at rest").ours == 0.75
    assert (row(found, "writes in 1 min").ours, row(found, "writes in 1 min").theirs) == (0, (3,))


def test_edits_are_in_milliseconds():
    found = compare.rows(costs(edits=(0.01, 0.02)), [costs(edits=(0.1, 0.3))])
    assert [(round(one.ours), round(one.theirs[0])) for one in found if one.what.startswith("edit")] == [
        (10, 100), (20, 300), (10, 100), (20, 300)]


def test_the_table_has_a_line_for_every_row_and_two_columns_for_every_peer():
    peers = [Measured("first", costs()), Measured("second", costs(rss=(90.0,)))]
    lines = compare.table(Measured("ours", costs()), peers).splitlines()
    assert lines[0] == "|  | ours, 2 replicas | first, 2 replicas | ratio | second, 1 replica | ratio |"
    assert len(lines) == 2 + len(compare.rows(costs(), [costs()])) + 1
    assert {line.count("|") for line in lines} == {7}
