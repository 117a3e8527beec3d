"""The account that the server keeps: its pods, endpoints and templates, and the faults that tests order."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from hearmeman_pod import schema

KEY = "rpa_KEY_that_must_not_appear_anywhere"

GPUS: tuple[dict[str, Any], ...] = tuple(
    {
        "id": name,
        "name": name.removeprefix("NVIDIA "),
        "pool": None,
        "manufacturer": "NVIDIA",
        "memory": memory,
        "secure": True,
        "community": True,
        "price": {"secure": price, "community": price / 2},
        "maxCount": {"secure": 8, "community": 4},
        "availability": stock,
        "cudaVersions": [{"version": version, "available": stock != "NONE"} for version in cuda],
        "dataCenters": [{"id": "US-KS-2", "name": "Kansas", "availability": stock}],
    }
    for name, memory, price, stock, cuda in (
        ("NVIDIA GeForce RTX 4090", 24, 0.69, "HIGH", ("12.8", "12.4")),
        ("NVIDIA GeForce RTX 5090", 32, 0.89, "MEDIUM", ("12.9", "12.8")),
        ("NVIDIA RTX A6000", 48, 0.79, "LOW", ("12.8",)),
        ("NVIDIA H100 80GB HBM3", 80, 2.99, "NONE", ("13.0", "12.10")),
        ("NVIDIA A100 80GB PCIe", 80, 1.39, "LOW", ()),
    )
)


@dataclass
class FakePod:
    """One pod of the account."""

    body: dict[str, Any]
    polls: int = 0
    """How often its state was asked for since it was started."""
    status: str = "PROVISIONING"
    cost: float = 0.69
    cuda: str = "12.8"
    used: float = field(default_factory=time.monotonic)
    """When ComfyUI was last asked for something, on the monotonic clock."""


@dataclass
class Account:
    """The server. `creates` and `deletes` hold what happens to the next requests of that kind, in order."""

    creates: deque[str] = field(default_factory=deque)
    """ok, capacity, rule, broke, quota, forbidden, busy, 500-before, 500-after, drop-after, html, html-after, empty-after, late,
    overtaken, interrupted, interrupted-later, then-interrupted"""
    interrupts_by: signal.Signals = signal.SIGINT
    """What comes where an answer is interrupted."""
    lists: deque[str] = field(default_factory=deque)
    """What happens to the next lists of pods: ok, 500, busy, odd."""
    reads: deque[str] = field(default_factory=deque)
    """What happens to the next looks at one pod: ok, 500, html, odd, drop, gone."""
    actions: deque[str] = field(default_factory=deque)
    """What happens to the next actions: ok, 409, drop-before, drop-after."""
    deletes: deque[str] = field(default_factory=deque)
    """ok, 500-before, drop-after, 409, interrupted"""
    ends_as: str = "RUNNING"
    """What a pod becomes after some polls."""
    cost: float = 0.69
    later_cost: float | None = None
    """What a pod costs once it runs, if that is not what RunPod said first."""
    cuda: str = "12.8"
    resumed_cuda: str = ""
    """CUDA of the host where a pod that is started again finds itself; empty: the same host."""
    ready_after: int = 2
    """Polls of /readyz until a pod says that it is ready."""
    queue: int = 0
    """Jobs in ComfyUI's queue."""
    texts: int = 0
    """Texts that each voice API has to speak."""
    gate: str = ""
    """ACCESS_TOKEN that the pods ask for; empty: none."""
    comfyui: str = ""
    """Address of what answers as the pods' ComfyUI, behind a gate that takes their ACCESS_TOKEN."""
    status_page: str = ""
    """Address of what answers as the pods' status page."""
    logs: tuple[str, ...] = ("pulling image", "started")
    volumes: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            "vol1": {"id": "vol1", "name": "v", "size": 100, "dataCenter": "US-KS-2", "type": "STANDARD"}
        }
    )
    """Network volumes."""
    volume_changes: deque[str] = field(default_factory=deque)
    """What happens to the next creates and deletes of volumes: ok, 500-before, drop-after, 409."""
    system_logs: tuple[str, ...] = ()
    """What RunPod itself says of the pods; empty: the same as `logs`."""
    cut_logs: bool = False
    """Whether a log stream breaks after each line."""
    break_logs: bool = False
    """Whether a log stream breaks before its first line."""
    holds_logs: float = 0.0
    """Seconds for which a log stream stays open after its last line."""
    retry_after: str = "1"
    """When one who asks too often may ask again."""
    progress: tuple[dict[str, Any], ...] = ()
    """What a job that runs reports, one at each look."""
    rollout: tuple[int, int] = (0, 0)
    """Workers of an endpoint that have its newest settings, and all of them."""
    key: str = KEY
    minute: float = 60.0
    """Seconds of the pods' minutes: one that nobody used for IDLE_STOP_MINUTES ends itself."""
    ssh_port: int = 2222
    """Where the pods' sshd is, on loopback; 0: they have no such port."""

    def __post_init__(self) -> None:
        self.pods: dict[str, FakePod] = {}
        self.templates: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.lost: deque[str] = deque()
        """What happens to the next answers about jobs: drop-after, expired."""
        self.patches: deque[str] = deque()
        """What happens to the next updates of an endpoint: ok, drop-after, 500-before."""
        self.requests: list[tuple[str, str, Any]] = []
        self.invalid: list[str] = []
        """Requests and answers that broke RunPod's schema."""
        self.hidden: dict[str, float] = {}
        """Pods that the list does not show before this time."""
        self.overtaken: set[str] = set()
        """Pods that the list does not show before another one runs."""
        self.unlisted: dict[str, int] = {}
        """Pods that the next so many lists do not show."""
        self.interrupt_list = False
        """Whether Ctrl-C comes when the list is asked for next."""
        self.lock = threading.RLock()
        self.leaving = threading.Event()
        """Set when the server ends."""
        self.readiness: dict[str, int] = {}
        self.resumed_from: list[str] = []
        """The Last-Event-ID of each log stream."""
        self.most_live = 0
        """The most pods that cost money at one time."""

    @property
    def live(self) -> list[str]:
        """Pods that cost money."""
        return [pod_id for pod_id, pod in self.pods.items() if pod.status not in ("TERMINATED", "EXITED")]

    def pass_time(self) -> None:
        """Let idle pods end themselves."""
        for pod in self.pods.values():
            minutes = float(pod.body.get("env", {}).get("IDLE_STOP_MINUTES", 0))
            if pod.status == "RUNNING" and minutes and time.monotonic() - pod.used > minutes * self.minute:
                stops = pod.body["env"].get("IDLE_ACTION", "stop") == "stop"
                pod.status = "EXITED" if stops else "TERMINATED"

    def made(self, body: dict[str, Any], status: str = "PROVISIONING") -> str:
        """Put a pod there."""
        with self.lock:
            pod_id = f"pod{len(self.pods)}"
            self.pods[pod_id] = FakePod(body, status=status, cost=self.cost, cuda=self.cuda)
            self.most_live = max(self.most_live, len(self.live))
            return pod_id

    def shown(self, pod_id: str) -> dict[str, Any]:
        """A pod as the API gives it."""
        pod = self.pods[pod_id]
        actions = {
            "RUNNING": ["stop", "restart", "terminate"],
            "EXITED": ["start", "terminate"],
            "ERROR": ["start", "terminate"],
        }
        running = pod.status == "RUNNING"
        end = {"host": "127.0.0.1", "port": self.ssh_port, "username": "root"}
        end["command"] = f"ssh root@127.0.0.1 -p {self.ssh_port}"
        answer: dict[str, Any] = {
            "id": pod_id,
            "name": pod.body["name"],
            "status": pod.status,
            "actions": actions.get(pod.status, ["stop", "terminate"]),
            "image": pod.body["image"],
            "args": "",
            "disk": pod.body.get("disk", 20),
            "mounts": pod.body.get("mounts", {}),
            "ports": pod.body.get("ports", []),
            "env": pod.body.get("env", {}),
            "registry": pod.body.get("registry"),
            "gpu": {key: pod.body["gpu"][key] for key in ("id", "count")},
            "cloud": pod.body.get("cloud", "SECURE"),
            "dataCenterId": "US-KS-2",
            "cudaVersion": pod.cuda,
            "ssh": {"proxy": None, "direct": end if running and self.ssh_port else None},
            "template": None,
            "cost": 0.0 if pod.status in ("EXITED", "TERMINATED") else pod.cost,
            "locked": False,
            "globalNetworking": {"enabled": False},
            "runtime": {"uptime": 5} if running else None,
            "createdAt": "2026-11-25T12:00:00Z",
            "startedAt": "2026-11-25T12:02:00Z" if running else None,
        }
        self.invalid += [f"answer Pod: {text}" for text in schema.problems("Pod", answer)]
        return answer
