"""The operator as a user installs it: two replicas, by helm."""

from pathlib import Path

from support.environment import ROOT, Environment

RELEASE = "deepseek-operator"
NAMESPACE = "deepseek-system"
CHART = ROOT / "charts" / "deepseek-operator"
KEDA_PORT = 9090
GPU_RUNTIME_CLASS = "nvidia"


def install(env: Environment, chart: Path, **values: object) -> None:
    """Installs a chart, or upgrades to it, and waits until the operator is ready; `values` beside those of every test."""
    every_test = {
        "image.operator": env.operator_image, "image.worker": env.worker_image, "replicas": 2,
        # A short lease, so that losing the leader is a matter of seconds.
        "leaderElection.leaseDurationSeconds": 4, "leaderElection.renewDeadlineSeconds": 3,
        "leaderElection.retryPeriodSeconds": 1,
    }
    settings = [word for name, value in {**every_test, **values}.items() for word in ("--set", f"{name}={value}")]
    env.run(env.helm, "upgrade", "--install", RELEASE, str(chart), "--namespace", NAMESPACE, "--create-namespace",
            "--wait", "--timeout", "180s", *settings, timeout=240)


def install_present(env: Environment) -> None:
    """This state's chart, with KEDA's scaler, and as where NVIDIA's runtime is not the nodes' default."""
    install(env, CHART, **{"keda.port": KEDA_PORT, "gpuRuntimeClass": GPU_RUNTIME_CLASS})


def uninstall(env: Environment) -> None:
    env.run(env.helm, "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "120s")
