"""An operator beside its peers, all asked the same by the same API server in the same run: a table with ratios."""

from collections.abc import Callable
from dataclasses import dataclass

from .audit import percentile
from .phases import Costs, Edits, Made, Steady
from .report import markdown
from .subject import PODS


@dataclass(frozen=True)
class Measured:
    name: str
    costs: Costs

    @property
    def title(self) -> str:
        replicas = len(self.costs.steady.rss_mib)
        return f"{self.name}, {replicas} replica{'' if replicas == 1 else 's'}"


@dataclass(frozen=True)
class Row:
    """A number of each: what is smaller is better, unless `more_is_better`."""

    what: str
    ours: float
    theirs: tuple[float, ...]
    unit: str = ""
    digits: int = 1
    more_is_better: bool = False

    def cells(self) -> tuple[str, ...]:
        """What, our number, and for each peer its number and the ratio."""
        beside = (cell for value in self.theirs for cell in (self._number(value), self._ratio(value)))
        return self.what, self._number(self.ours), *beside

    def _number(self, value: float) -> str:
        return f"{value:,.{self.digits}f}{self.unit and ' '}{self.unit}"

    def _ratio(self, theirs: float) -> str:
        """Their number for each of ours, turned round where more is better: above 1 ours is the better one."""
        above, below = (self.ours, theirs) if self.more_is_better else (theirs, self.ours)
        if not below:
            return ""
        ratio = above / below
        return f"{ratio:.{0 if ratio >= 10 else 1 if ratio >= 1 else 2}f}"


def rows(ours: Costs, theirs: list[Costs]) -> list[Row]:
    found: list[Row] = []
    for number, made in enumerate(ours.made):
        found += _made(made, [each.made[number] for each in theirs])
    return (found + _steady(ours.steady, [each.steady for each in theirs]) +
            _edits(ours.edits, [each.edits for each in theirs]))


def _made(ours: Made, theirs: list[Made]) -> list[Row]:
    def row(what: str, value: Callable[[Made], float], unit: str = "", digits: int = 1, more: bool = False) -> Row:
        return Row(f"{ours.pods:,} pods: {what}", value(ours), tuple(map(value, theirs)), unit, digits, more)

    return [
        row("first object received to last pod made", lambda m: m.seconds, "s"),
        row("pods per second", lambda m: m.pods / m.seconds, digits=0, more=True),
        row("until all objects are ready", lambda m: m.ready_seconds, "s"),
        row("API calls per pod", lambda m: m.calls / m.pods, digits=2),
        row("CPU time, all replicas", lambda m: m.cpu_seconds, "s"),
        row("CPU time of API server and controller manager meanwhile", lambda m: m.control_plane_cpu_seconds, "s"),
        row("RSS afterwards, the larger replica", lambda m: max(m.rss_mib), "MiB"),
    ]


def _steady(ours: Steady, theirs: list[Steady]) -> list[Row]:
    def row(what: str, value: Callable[[Steady], float], unit: str = "", digits: int = 1) -> Row:
        return Row(what, value(ours), tuple(map(value, theirs)), unit, digits)

    minutes = f"{ours.seconds / 60:g} min at rest"
    return [
        row(f"writes in {minutes}, without the Lease", lambda s: sum(s.writes.values()), digits=0),
        row(f"reads in {minutes}", lambda s: s.reads, digits=0),
        row("CPU at rest, share of a core, all replicas", lambda s: sum(s.cpu_percent), "%"),
        row("RSS at rest, the larger replica", lambda s: max(s.rss_mib), "MiB"),
        row("RSS at its highest so far, the larger replica", lambda s: max(s.peak_mib), "MiB"),
    ]


def _edits(ours: Edits, theirs: list[Edits]) -> list[Row]:
    def row(what: str, percent: int, value: Callable[[Edits], list[float]]) -> Row:
        def milliseconds(edits: Edits) -> float:
            return 1e3 * percentile(value(edits), percent)

        return Row(f"edit for {PODS} pods more to {what}, p{percent} of {len(value(ours))}",
                   milliseconds(ours), tuple(map(milliseconds, theirs)), "ms", digits=0)

    return [row(what, percent, value)
            for what, value in (("first write", lambda e: e.first_write), ("first pod", lambda e: e.first_pod))
            for percent in (50, 99)]


def calls(costs: Costs) -> str:
    """Who made how many of the calls per pod, and which, over all that was made."""
    pods = sum(made.pods for made in costs.made)

    def per_pod(counts: list[dict[str, int]]) -> str:
        names = dict.fromkeys(name for each in counts for name in each)
        shares = {name: sum(each.get(name, 0) for each in counts) / pods for name in names}
        shown = sorted(shares.items(), key=lambda item: -item[1])
        return ", ".join(f"{name.rpartition(':')[2]} {share:.2f}" for name, share in shown if share >= 0.005)

    return f"{per_pod([made.users for made in costs.made])} ({per_pod([made.kinds for made in costs.made])})"


def table(ours: Measured, theirs: list[Measured]) -> str:
    head = ("", ours.title, *(cell for each in theirs for cell in (each.title, "ratio")))
    return markdown(head, [
        *(row.cells() for row in rows(ours.costs, [each.costs for each in theirs])),
        ("calls per pod by whom, and which", calls(ours.costs),
         *(cell for each in theirs for cell in (calls(each.costs), "")))])
