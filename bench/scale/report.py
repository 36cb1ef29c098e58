"""The results as a table in Markdown: what, seen, and what we aim at."""

from .audit import percentile
from .deepseek import Lease
from .phases import Edits, Made, Numbers, Restart, Steady


def markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))


class Table:
    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str]] = []

    def row(self, what: str, seen: str, aim: str = "") -> None:
        self._rows.append((what, seen, aim))

    def section(self, title: str) -> None:
        self.row(f"**{title}**", "")

    def markdown(self) -> str:
        return markdown(("", "seen", "aim"), self._rows)


def _ms(seconds: list[float]) -> str:
    return " / ".join(f"{1e3 * percentile(seconds, p):.0f}" for p in (50, 99)) + " ms"


def _each(values: list[float], unit: str) -> str:
    return ", ".join(f"{v:.1f}" for v in values) + " " + unit


def _kinds(kinds: dict[str, int], pods: int) -> str:
    return ", ".join(f"{kind} {count / pods:.2f}" for kind, count in kinds.items() if count / pods >= 0.005)


def made(table: Table, made: Made) -> None:
    table.section(f"{made.objects} models, {made.pods} pods")
    table.row("first model received to last pod made", f"{made.seconds:.1f} s", "1,000 pods: 15 s")
    table.row("until all models are ready", f"{made.ready_seconds:.1f} s")
    table.row("API calls per pod", f"{made.calls / made.pods:.2f}: {_kinds(made.kinds, made.pods)}")
    table.row("CPU time, both replicas", f"{made.cpu_seconds:.1f} s")
    table.row("RSS afterwards, each replica", _each(made.rss_mib, "MiB"))


def steady(table: Table, steady: Steady) -> None:
    minutes = steady.seconds / 60
    kinds = ", ".join(f"{kind} {count}" for kind, count in steady.writes.items())
    table.row(f"writes in {minutes:g} min, without the Lease", kinds or "0", aim="0")
    table.row(f"reads in {minutes:g} min", str(steady.reads))
    table.row("CPU, share of a core, each replica", _each(steady.cpu_percent, "%"), aim="idle")
    table.row("RSS, each replica", _each(steady.rss_mib, "MiB"), aim="64 MiB")
    table.row("RSS at its highest so far, each replica", _each(steady.peak_mib, "MiB"))


def numbers(table: Table, numbers: Numbers) -> None:
    table.row(f"status numbers of all models change every second for {numbers.seconds:g} s: writes",
              str(numbers.writes))
    table.row("most writes of one model within 5 s", str(numbers.most_in_window), aim="1")
    table.row("shortest time between two writes of one model", f"{numbers.shortest_gap:.2f} s")
    table.row("CPU meanwhile, each replica", _each(numbers.cpu_percent, "%"))


def edits(table: Table, edits: Edits) -> None:
    table.row(f"edit of the number of groups to first write, p50 / p99 of {len(edits.first_write)}",
              _ms(edits.first_write), aim="p99 50 ms")
    table.row("to the first pod made for it", _ms(edits.first_pod))
    table.row("of these, the API server's own time for the edit", _ms(edits.answered))


def failover(table: Table, lease: Lease, times: list[float]) -> None:
    table.row(f"leader killed to the next leader's first pod for an edit made then, median / most of {len(times)}",
              f"{percentile(times, 50):.1f} / {max(times):.1f} s", aim=f"{lease.duration + 1:g} s")


def restart(table: Table, restart: Restart) -> None:
    table.row("start to full caches", f"{restart.synced_seconds:.1f} s")
    table.row("start to leading with every model looked at", f"{restart.idle_seconds:.1f} s")
    table.row("writes after the start", str(restart.writes), aim="0")
    table.row("RSS then", f"{restart.rss_mib:.1f} MiB", aim="64 MiB")
