"""Where the end-to-end tests run: the programs, images and cluster that scripts/e2e hands over by environment."""

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What a run leaves for people to look at.
REPORT_FOLDER = Path(os.environ.get("DSM_REPORT_FOLDER", ROOT / ".local" / "report"))

CUDA_ARCHIVE = ROOT / "build" / "deepseek-worker-cuda.tar"
EMULATED_ARCHIVE = ROOT / "build" / "deepseek-worker-emulated.tar"


@dataclass(frozen=True)
class Environment:
    kubeconfig: str
    kubectl: str
    helm: str
    dsmctl: str
    operator_image: str
    worker_image: str
    # Program that controls the local cluster's parts; empty on a cluster that somebody else runs.
    cluster_ctl: str
    # Name of the worker's image for GPUs, which scripts/images has put into CUDA_ARCHIVE; empty: its tests are left out.
    cuda_image: str
    # The same of the worker on the emulated GPU (scripts/emulated-image).
    emulated_image: str
    # Folder with Kueue's program and manifests (scripts/go-program); empty: its test is left out.
    kueue: str
    # The same of the scheduler with the coscheduling plugin.
    coscheduling: str

    @staticmethod
    def read() -> "Environment":
        def need(name: str) -> str:
            value = os.environ.get(name, "")
            if not value:
                raise RuntimeError(f"{name} is not set: run the suite with `make e2e`")
            return value

        return Environment(
            kubeconfig=need("DSM_KUBECONFIG"),
            kubectl=need("DSM_KUBECTL"),
            helm=need("DSM_HELM"),
            dsmctl=need("DSM_DSMCTL"),
            operator_image=need("DSM_OPERATOR_IMAGE"),
            worker_image=need("DSM_WORKER_IMAGE"),
            cluster_ctl=os.environ.get("DSM_CLUSTER_CTL", ""),
            cuda_image=os.environ.get("DSM_CUDA_IMAGE", ""),
            emulated_image=os.environ.get("DSM_EMULATED_IMAGE", ""),
            kueue=os.environ.get("DSM_KUEUE", ""),
            coscheduling=os.environ.get("DSM_COSCHEDULING", ""),
        )

    def run(self, *command: str, check: bool = True, stdin: str | None = None, timeout: float = 300) -> subprocess.CompletedProcess:
        """Runs a program with KUBECONFIG set; its output is in the error when it fails."""
        done = subprocess.run(
            command, input=stdin, text=True, capture_output=True, timeout=timeout,
            env={**os.environ, "KUBECONFIG": self.kubeconfig}, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"{shlex.join(command)} exited {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def k(self, *arguments: str, **options) -> str:
        """kubectl's standard output."""
        return self.run(self.kubectl, *arguments, **options).stdout

    def ctl(self, *arguments: str, **options) -> str:
        return self.run(self.cluster_ctl, *arguments, **options).stdout

    def in_cluster_network(self, *command: str) -> list[str]:
        """The command line that runs `command` where Service addresses can be reached (local cluster only)."""
        return [self.cluster_ctl, "nsenter", "--", *command]
