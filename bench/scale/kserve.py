"""KServe's controller (github.com/kserve/kserve): as released, in its Standard mode, with the rights of its chart.

An InferenceService becomes a Deployment and a Service. The Deployment and ReplicaSet controllers of
kube-controller-manager make the pods, so the calls of all three are what it costs. It knows no groups: as many pods.
"""

from localcluster.processes import Component

from .peer import Peer, webhook_port
from .subject import GROUPS, PODS, has

SERVICES = ("serving.kserve.io/v1beta1", "inferenceservices")
_RUNTIMES = ("serving.kserve.io/v1alpha1", "clusterservingruntimes")
# Deployments without Knative, and nothing besides: no cluster of this kind has a controller for the Ingress.
_SETTINGS = ("kserve.controller.deploymentMode=Standard", "kserve.controller.gateway.disableIngressCreation=true")


class KServe(Peer):
    program = "kserve"
    title = "KServe"
    namespace = "kserve"
    account = "kserve-controller-manager"
    service = "kserve-webhook-server-service"
    replicas = ("kserve",)
    resource = SERVICES
    users = (f"system:serviceaccount:{namespace}:{account}", *(
        f"system:serviceaccount:kube-system:{name}-controller" for name in ("deployment", "replicaset")))

    def install(self) -> None:
        """Its runtimes before the webhook that would have to admit them."""
        self.plane.apply(self.render("kserve-crd"))
        self.plane.wait_served(_RUNTIMES)
        self.plane.apply(self.render("kserve-resources", "clusterservingruntimes"))
        self.plane.apply(self.render(
            "kserve-resources", "configmap", "serviceaccount", "role", "rolebinding", "clusterrole",
            "clusterrolebinding", "service", "webhookconfiguration", values=_SETTINGS), self.namespace)

    def component(self, number: int) -> Component:
        """Without --leader-elect: it finds the namespace of its Lease only from within a pod."""
        return Component(self.replicas[number], [
            str(self.binary), f"--kubeconfig={self.kubeconfig}", f"--webhook-port={webhook_port(number)}",
            "--metrics-addr=127.0.0.1:8080"], env={"POD_NAMESPACE": self.namespace, "TMPDIR": str(self.temporary)})

    def make(self, namespace: str, name: str) -> dict:
        """Pods of its runtime for language models; a model that this loads by its id needs no container besides."""
        return {
            "apiVersion": SERVICES[0], "kind": "InferenceService",
            # Without an autoscaler minReplicas is the number of pods.
            "metadata": {"name": name, "namespace": namespace,
                         "annotations": {"serving.kserve.io/autoscalerClass": "none"}},
            "spec": {"predictor": {"minReplicas": GROUPS * PODS, "model": {
                "modelFormat": {"name": "huggingface"}, "runtime": "kserve-huggingfaceserver",
                "args": ["--model_id=deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"]}}}}

    def grown(self) -> dict:
        return {"spec": {"predictor": {"minReplicas": (GROUPS + 1) * PODS}}}

    def is_ready(self, one: dict) -> bool:
        """Which it says when the rollout of the Deployment has ended: when all pods are ready."""
        return has(one, "Ready")
