"""Images: the pause image, written by hand, and loading archives into the nodes' containerds."""

import hashlib
import io
import json
import tarfile
import tempfile
from pathlib import Path

from .layout import PAUSE_IMAGE, Layout, Node
from .shell import Failure, run

_PAUSE_SOURCE = Path(__file__).resolve().parents[1] / "pause" / "pause.c"


def ctr(node: Node, *argv: object) -> str:
    return run("ctr", "--address", node.containerd_socket, "--namespace", "k8s.io", *argv)


def load(cluster: Layout, archive: Path) -> None:
    """Imports an OCI archive whose index says the image's full name."""
    if not archive.is_file():
        raise Failure(f"there is no image archive {archive}")
    for node in cluster.nodes:
        ctr(node, "images", "import", archive)


def load_pause(cluster: Layout) -> None:
    with tempfile.TemporaryDirectory() as folder:
        program, archive = Path(folder) / "pause", Path(folder) / "pause.tar"
        run("cc", "-Os", "-static", "-s", "-o", program, _PAUSE_SOURCE)
        write_one_file_image(archive, PAUSE_IMAGE, program)
        load(cluster, archive)


def write_one_file_image(archive: Path, name: str, program: Path) -> None:
    """An OCI image archive with one layer, in which the program is the only file."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        entry = tarfile.TarInfo(program.name)
        entry.size, entry.mode = program.stat().st_size, 0o755
        with program.open("rb") as data:
            tar.addfile(entry, data)
    with tarfile.open(archive, "w") as tar:

        def add(path: str, content: bytes) -> None:
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        def blob(kind: str, content: bytes) -> dict:
            digest = hashlib.sha256(content).hexdigest()
            add(f"blobs/sha256/{digest}", content)
            return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}",
                    "size": len(content)}

        layer_blob = blob("layer.v1.tar", layer.getvalue())
        config = blob("config.v1+json", json.dumps({
            "architecture": "amd64", "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"], "User": "65534:65534"},
            "rootfs": {"type": "layers", "diff_ids": [layer_blob["digest"]]},
        }).encode())
        manifest = blob("manifest.v1+json", json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": [layer_blob],
        }).encode())
        # The whole name: with less, containerd makes up a second one that cannot be resolved later.
        manifest["annotations"] = {"org.opencontainers.image.ref.name": name}
        add("index.json", json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode())
        add("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
