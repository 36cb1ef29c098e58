"""JSON schemas for kubeconform: of a Kubernetes release, from its own description of its API, and of our kinds, from crds/.

    json_schemas.py SWAGGER FOLDER

Each file has one kind of one version, under the name by which kubeconform looks for it, and allows no other fields
than it names. Quantities and ports may be numbers where Kubernetes takes them.
"""

import json
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PREFIX = "#/definitions/"
LOOSE = {  # definitions whose text says too little
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
}


def strict(schema):
    """The same with no fields but the named ones, in every object that names some."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out = {}
    for key, value in schema.items():
        if key == "properties":
            out[key] = {name: strict(one) for name, one in value.items()}
        elif not key.startswith("x-") and key != "format":
            out[key] = strict(value)
    if schema.get("x-kubernetes-int-or-string"):
        out["type"] = ["string", "integer"]
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in schema and not open_ended:
        out["additionalProperties"] = False
    return out


def references(schema) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(references, schema), set())
    if not isinstance(schema, dict):
        return set()
    here = {schema["$ref"].removeprefix(PREFIX)} if isinstance(schema.get("$ref"), str) else set()
    return here.union(*map(references, schema.values()), set())


def file_name(group: str, version: str, kind: str) -> str:
    return "-".join(filter(None, [kind.lower(), group.partition(".")[0], version])) + ".json"


def of_kubernetes(swagger: dict):
    definitions = {name: LOOSE.get(name) or strict(one) for name, one in swagger["definitions"].items()}
    for name, one in swagger["definitions"].items():
        needed, found = {name}, set()
        while needed:
            found |= needed
            needed = set().union(*(references(definitions[one]) for one in needed)) - found
        for kind in one.get("x-kubernetes-group-version-kind", []):
            yield (file_name(kind["group"], kind["version"], kind["kind"]),
                   {"$ref": PREFIX + name, "definitions": {one: definitions[one] for one in found}})


def of_ours():
    for file in sorted((ROOT / "crds").glob("*.yaml")):
        spec = yaml.safe_load(file.read_text())["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            yield file_name(spec["group"], version["name"], spec["names"]["kind"]), schema


def main() -> None:
    swagger, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in [*of_kubernetes(json.loads(swagger.read_text())), *of_ours()]:
        (folder / name).write_text(json.dumps(schema))


if __name__ == "__main__":
    main()
