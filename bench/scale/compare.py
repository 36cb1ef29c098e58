"""An operator beside its peer, both asked the same by the same API server in the same run: a table with ratios."""

from collections.abc import Callable
from dataclasses import dataclass

from .audit import percentile
from .phases import Costs, Made
from .report import markdown


@dataclass(frozen=True)
class Row:
    """A number of each: what is smaller is better, unless `more_is_better`."""

    what: str
    ours: float
    theirs: float
    unit: str = ""
    digits: int = 1
    more_is_better: bool = False

    def cells(self) -> tuple[str, str, str, str]:
        return self.what, self._number(self.ours), self._number(self.theirs), self._ratio()

    def _number(self, value: float) -> str:
        return f"{value:,.{self.digits}f}{self.unit and ' '}{self.unit}"

    def _ratio(self) -> str:
        """Their number for each of ours, turned round where more is better: above 1 ours is the better one."""
        above, below = (self.ours, self.theirs) if self.more_is_better else (self.theirs, self.ours)
        if not below:
            return ""
        ratio = above / below
        return f"{ratio:.{0 if ratio >= 10 else 1 if ratio >= 1 else 2}f}"


def rows(ours: Costs, theirs: Costs) -> list[Row]:
    found: list[Row] = []
    for mine, other in zip(ours.made, theirs.made, strict=True):
        found += _made(mine, other)
    return found + _steady(ours, theirs) + _edits(ours, theirs)


def _made(ours: Made, theirs: Made) -> list[Row]:
    def row(what: str, value: Callable[[Made], float], unit: str = "", digits: int = 1, more: bool = False) -> Row:
        return Row(f"{ours.pods:,} pods: {what}", value(ours), value(theirs), unit, digits, more)

    return [
        row("first object received to last pod made", lambda m: m.seconds, "s"),
        row("pods per second", lambda m: m.pods / m.seconds, digits=0, more=True),
        row("until all objects are ready", lambda m: m.ready_seconds, "s"),
        row("API calls per pod", lambda m: m.calls / m.pods, digits=2),
        row("CPU time, all replicas", lambda m: m.cpu_seconds, "s"),
        row("CPU time of API server and controller manager meanwhile", lambda m: m.control_plane_cpu_seconds, "s"),
        row("RSS afterwards, the larger replica", lambda m: max(m.rss_mib), "MiB"),
    ]


def _steady(ours: Costs, theirs: Costs) -> list[Row]:
    a, b = ours.steady, theirs.steady
    minutes = f"{a.seconds / 60:g} min at rest"
    return [
        Row(f"writes in {minutes}, without the Lease", sum(a.writes.values()), sum(b.writes.values()), digits=0),
        Row(f"reads in {minutes}", a.reads, b.reads, digits=0),
        Row("CPU at rest, share of a core, all replicas", sum(a.cpu_percent), sum(b.cpu_percent), "%"),
        Row("RSS at rest, the larger replica", max(a.rss_mib), max(b.rss_mib), "MiB"),
        Row("RSS at its highest so far, the larger replica", max(a.peak_mib), max(b.peak_mib), "MiB"),
    ]


def _edits(ours: Costs, theirs: Costs) -> list[Row]:
    def row(what: str, percent: int, a: list[float], b: list[float]) -> Row:
        return Row(f"edit of the number of groups to {what}, p{percent} of {len(a)}",
                   1e3 * percentile(a, percent), 1e3 * percentile(b, percent), "ms", digits=0)

    a, b = ours.edits, theirs.edits
    return [row(what, percent, x, y)
            for what, x, y in (("first write", a.first_write, b.first_write), ("first pod", a.first_pod, b.first_pod))
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


def table(our_name: str, ours: Costs, their_name: str, theirs: Costs) -> str:
    return markdown(("", our_name, their_name, "ratio"), [
        *(row.cells() for row in rows(ours, theirs)),
        ("calls per pod by whom, and which", calls(ours), calls(theirs), "")])
