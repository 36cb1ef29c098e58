"""The API server's audit log: who asked for what, and when, by one clock.

Everything that is counted or timed is read from it: a third party, at one place.
"""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_WRITES = frozenset(("create", "update", "patch", "delete", "deletecollection"))
# It leaves the names of its pods to the API server, so what they begin with is only in the body of its requests.
_NAMELESS = "system:serviceaccount:kube-system:replicaset-controller"


@dataclass(frozen=True, slots=True)
class Request:
    user: str
    verb: str  # "dry-run update" and the like where nothing was to be stored
    resource: str  # with its subresource: "pods", "deepseekmodels/status"
    namespace: str
    name: str  # of a created object perhaps its beginning only
    code: int
    begin: float  # seconds since 1970: received by the API server
    end: float  # answered

    @property
    def is_write(self) -> bool:
        return self.verb in _WRITES

    @property
    def owner(self) -> str:
        """The object that the named one belongs to: children are called `<owner>-...`, Events `<owner>.<number>`."""
        return self.name.split(".")[0].split("-")[0]


def policy(users: Iterable[str], editor: str, resources: Iterable[tuple[str, str]]) -> dict:
    """Logs every request of the users, and those by which `editor` makes and edits objects of the resources."""
    return {
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [
            {"level": "Request", "users": [_NAMELESS], "verbs": ["create"],
             "resources": [{"group": "", "resources": ["pods"]}]},
            {"level": "Metadata", "users": list(users)},
            {"level": "Metadata", "users": [editor], "verbs": ["create", "patch"],
             "resources": [{"group": version.split("/")[0], "resources": [plural]} for version, plural in resources]},
            {"level": "None"},
        ],
    }


def parse(line: bytes) -> Request | None:
    """A line of the log; None for a request that is about no object (discovery)."""
    event = json.loads(line)
    about = event.get("objectRef")
    if about is None:
        return None
    resource = about.get("resource", "") + ("/" + about["subresource"] if "subresource" in about else "")
    verb = ("dry-run " if "dryRun=" in event.get("requestURI", "") else "") + event["verb"]
    name = about.get("name") or event.get("requestObject", {}).get("metadata", {}).get("generateName", "")
    return Request(
        event["user"]["username"], verb, resource, about.get("namespace", ""), name,
        event.get("responseStatus", {}).get("code", 0), _seconds(event["requestReceivedTimestamp"]),
        _seconds(event["stageTimestamp"]))


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class Log:
    """Follows the file."""

    def __init__(self, path: Path):
        self._path = path
        self._offset = 0

    def read(self) -> list[Request]:
        """What was added since the last time, whole lines only."""
        if not self._path.exists():
            return []
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            added = file.read()
        whole = added[:added.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [r for r in map(parse, whole.splitlines()) if r is not None]


def of_users(requests: Iterable[Request], users: Collection[str]) -> list[Request]:
    """Without the Lease, which is renewed whatever happens."""
    return [r for r in requests if r.user in users and r.resource != "leases"]


def writes(requests: Iterable[Request], users: Collection[str]) -> list[Request]:
    return [r for r in of_users(requests, users) if r.is_write]


def by_kind(requests: Iterable[Request]) -> dict[str, int]:
    """"create pods" -> how often, the most frequent first."""
    return dict(Counter(f"{r.verb} {r.resource}" for r in requests).most_common())


def created_pods(requests: Iterable[Request]) -> list[Request]:
    return [r for r in requests if r.verb == "create" and r.resource == "pods" and r.code == 201]


def reactions(requests: Iterable[Request], editor: str, plural: str, users: Collection[str],
              written: str | None = None) -> list[float]:
    """Seconds from each edit of a `plural` to the first write by one of the users that belongs to it and was accepted:
    of a `written`, or of anything.

    Both are the moments at which the API server received the request, so its own work on the edit is in them.
    """
    waiting: dict[tuple[str, str], float] = {}
    found = []
    for r in sorted(requests, key=lambda r: r.begin):
        key = (r.namespace, r.owner)
        if r.user == editor and r.verb == "patch" and r.resource == plural:
            waiting[key] = r.begin
        elif r.user in users and r.is_write and r.code < 400 and written in (None, r.resource) and key in waiting:
            found.append(r.begin - waiting.pop(key))
    return found


def durations(requests: Iterable[Request], editor: str, plural: str) -> list[float]:
    """Seconds that the API server took for each edit of a `plural`."""
    return [r.end - r.begin for r in requests if (r.user, r.verb, r.resource) == (editor, "patch", plural)]


def most_within(times: Iterable[float], seconds: float) -> int:
    """The most of the times that lie within any window of so many seconds."""
    times = sorted(times)
    most, first = 0, 0
    for last, time in enumerate(times):
        while time - times[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def percentile(values: Iterable[float], percent: int) -> float:
    """The nearest rank: the smallest of the values that at least so many percent of them do not exceed."""
    values = sorted(values)
    return values[max(0, math.ceil(len(values) * percent / 100) - 1)] if values else math.nan
