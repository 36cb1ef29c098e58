"""Emulated GPUs of a node, and their device plugin, which does what NVIDIA's does: it says which GPUs there are and which
are well, and gives a container those that the kubelet has chosen.

How a GPU is stands in a file that the plugin mounts into the container (kernels/cuda/emulation/gpu_file.h)."""

import sys
import threading
from concurrent import futures
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parent))
messages, services = grpc.protos_and_services("deviceplugin.proto")

RESOURCE = "nvidia.com/gpu"
# A kubelet has no option for it, so of several on one machine it is that of the one which started last.
FOLDER = Path("/var/lib/kubelet/device-plugins")
SOCKET = "dsm-emulated-gpus.sock"
MOUNTED = "/run/emulated-gpus"
LINKS = "/run/emulated-links"
LOCAL = [("grpc.enable_http_proxy", 0)]


class Gpus(services.DevicePluginServicer):
    """Each is named by its PCI address."""

    def __init__(self, folder: Path, count: int):
        self.folder, self.links = folder / "gpus", folder / "links"
        for part, mode in ((folder, 0o755), (self.folder, 0o755), (self.links, 0o777)):
            part.mkdir(exist_ok=True)
            part.chmod(mode)
        self.changed = threading.Condition()
        self.well: dict[str, bool] = {}
        self.given: list[list[str]] = []
        self.ended = False
        for number in range(count):
            address = f"0000:{number + 1:02X}:00.0"
            (self.folder / address).write_text(f"minor {number}\n")
            self.well[address] = True
        self.server: grpc.Server | None = None

    def start(self) -> None:
        """As a plugin's pod does when it starts: it serves, and tells the kubelet."""
        self.ended = False
        (FOLDER / SOCKET).unlink(missing_ok=True)
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        services.add_DevicePluginServicer_to_server(self, self.server)
        self.server.add_insecure_port(f"unix://{FOLDER / SOCKET}")
        self.server.start()
        with grpc.insecure_channel(f"unix://{FOLDER / 'kubelet.sock'}", options=LOCAL) as kubelet:
            services.RegistrationStub(kubelet).Register(messages.RegisterRequest(
                version="v1beta1", endpoint=SOCKET, resource_name=RESOURCE), timeout=10)

    def stop(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify_all()
        if self.server is not None:
            self.server.stop(None).wait()
            self.server = None
        (FOLDER / SOCKET).unlink(missing_ok=True)

    def say(self, address: str, *lines: str) -> None:
        """What the driver tells of a GPU from now on."""
        with open(self.folder / address, "a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def lose(self, address: str) -> None:
        """It falls off the bus; NVIDIA's plugin hears the same Xid."""
        self.say(address, "xid 79", "lost 1")
        self._mark(address, False)

    def replace(self, address: str) -> None:
        """Another GPU in its place."""
        self.say(address, "lost 0", "row_pending 0")
        self._mark(address, True)

    def _mark(self, address: str, well: bool) -> None:
        with self.changed:
            self.well[address] = well
            self.changed.notify_all()

    # The kubelet's questions.

    def GetDevicePluginOptions(self, request, context):
        return messages.DevicePluginOptions()

    def ListAndWatch(self, request, context):
        told = None
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.ended or self.well != told)
                if self.ended:
                    return
                told = dict(self.well)
            yield messages.ListAndWatchResponse(devices=[
                messages.Device(ID=address, health="Healthy" if well else "Unhealthy") for address, well in told.items()])

    def Allocate(self, request, context):
        answer = messages.AllocateResponse()
        for container in request.container_requests:
            addresses = sorted(container.devices_ids)
            self.given.append(addresses)
            answer.container_responses.append(messages.ContainerAllocateResponse(
                envs={"NVIDIA_VISIBLE_DEVICES": ",".join(addresses), "DSM_EMULATED_GPUS": ",".join(addresses),
                      "DSM_EMULATED_NVML": MOUNTED, "DSM_EMULATED_NCCL": LINKS, "DSM_EMULATED_MIB": "200"},
                mounts=[messages.Mount(container_path=MOUNTED, host_path=str(self.folder), read_only=True),
                        messages.Mount(container_path=LINKS, host_path=str(self.links))]))
        return answer
