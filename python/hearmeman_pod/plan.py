"""Wishes, an image, the catalogue of models and RunPod's GPUs to one request for a pod, and what it will cost; pure."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hearmeman.models.asked import asked_for, for_tier
from hearmeman.models.catalogue import Catalogue, File, Model
from hearmeman.settings import ALIASES, SECRETS, Settings, canonical, load
from hearmeman.settings.command import template
from hearmeman.tune.tuner import row_for
from hearmeman_pod import schema
from hearmeman_pod.errors import UsageError
from hearmeman_pod.gpus import Gpu, choose
from hearmeman_pod.images import Image

MOST_VARIABLES = 50
"""RunPod's documentation states this limit; its schema does not."""
MOST_HTTP_PORTS = 10
ORDER = "HEARMEMAN_ORDER"
"""Variable that carries a create's own mark, so that its pod is found again whatever became of the answer."""

DISK_GB = 20
SMALLEST_VOLUME_GB = 20
OUTPUTS_GB = 15
"""What a volume keeps free for outputs, inputs, added nodes and their packages."""
MARGIN = 1.05
LEAST_VRAM_GB = 8.0
_DATA_CENTER = re.compile(r"[A-Z]{2,4}(-[A-Z0-9]{1,4})+")
_SECRET_NAME = re.compile(r"[A-Za-z0-9_.-]+")
PULL_BYTES_PER_SECOND = 100e6
FETCH_BYTES_PER_SECOND = 51e6
"""What the template's authors measured in RunPod's Secure Cloud in the United States."""


@dataclass(frozen=True)
class Volume:
    """A network volume that exists."""

    id: str
    size: int
    """GB."""
    data_center: str


@dataclass(frozen=True)
class Wishes:
    """What a person asked for."""

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)
    """Variables of the pod; secrets are not among them."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Secret variable -> the RunPod secret that holds its value; empty takes the usual name."""
    gpus: tuple[str, ...] = ()
    """Names of acceptable GPUs in order; empty lets memory and price decide."""
    gpu_count: int = 1
    cloud: str = "SECURE"
    data_center: str = ""
    disk_gb: int = 0
    """Container disk; 0 takes the usual size."""
    volume_gb: int | None = None
    """Pod volume; None computes it from the models, 0 means none."""
    network_volume: Volume | None = None
    max_price: float | None = None
    """Dollars an hour that the pod may cost at most."""
    registry: str = ""
    """RunPod's id of the registry's credentials, for a private image."""
    ends_itself: bool = False
    """Whether the command that makes the pod fetches its files and ends it."""
    recommended: bool | None = None
    """Whether the pod gets what the image's tier recommends; None: where the variables choose no model."""


@dataclass(frozen=True)
class Plan:
    """One pod, ready to be asked for."""

    image: Image
    body: Mapping[str, Any]
    """The request for the first choice of GPU; `body_for` gives it for another."""
    choices: tuple[Gpu, ...]
    """Acceptable GPUs in order."""
    models: tuple[tuple[str, int], ...]
    """Model and its bytes; a file that several need counts with the first."""
    memory_gb: float
    """VRAM that the models want."""
    notes: tuple[str, ...]
    """What a person should know."""

    @property
    def model_bytes(self) -> int:
        """Bytes of all models."""
        return sum(size for _, size in self.models)

    @property
    def price(self) -> float | None:
        """Dollars an hour of the first choice; None without the live catalogue."""
        price = self.choices[0].price
        return None if price is None else price * int(self.body["gpu"]["count"])

    @property
    def ready_seconds(self) -> float:
        """A guess at the seconds until all models are there; ComfyUI itself is up when the image is pulled."""
        return self.image.size / PULL_BYTES_PER_SECOND + 60 + self.model_bytes / FETCH_BYTES_PER_SECOND

    def body_for(self, gpu: Gpu, order: str = "") -> dict[str, Any]:
        """The request for `gpu`; in its environment what an hour of it costs, and the create's own mark."""
        body = {**self.body, "gpu": {**self.body["gpu"], "id": gpu.id}}
        body["env"] = dict(body["env"])
        if gpu.price is not None:
            body["env"]["DOLLARS_PER_HOUR"] = f"{gpu.price * int(body['gpu']['count']):.4g}"
        if order:
            body["env"][ORDER] = order
        return body


def make_plan(wishes: Wishes, image: Image, catalogue: Catalogue, gpus: Sequence[Gpu]) -> Plan:
    """Plan one pod.

    Raises:
        UsageError: wishes that exclude each other, wrong variables, or a body that RunPod would refuse.
        NoCapacityError: no GPU is acceptable.
        HearmemanError: the pod's own settings or catalogue are wrong.
    """
    _refuse_clashes(wishes)
    recommended = _recommended(wishes, image, catalogue)
    environ = {**image.defaults, **recommended, **_environ(wishes)}
    settings = load(environ, whole=True)
    asked = asked_for(catalogue, settings)
    memory = max([LEAST_VRAM_GB, *(model.vram_gb or 0 for model in asked)])
    where = wishes.network_volume.data_center if wishes.network_volume else wishes.data_center
    choices = choose(gpus, wishes.gpus, memory, wishes.gpu_count, where, wishes.max_price)
    tier = settings.gpu_tier if settings.gpu_tier != "auto" else row_for(choices[0].memory * 1024)[1]
    models = for_tier(asked, settings, tier)
    sizes = _sizes(catalogue, models)
    body = _body(wishes, image, environ, settings, sum(size for _, size in sizes), choices[0], where)
    schema.check("CreatePodRequest", body)
    notes = _notes(wishes, image, settings, choices, asked, models, catalogue)
    if recommended:
        listed = ", ".join(f"{name}={value}" for name, value in recommended.items())
        how = "" if wishes.recommended else "; --workflow, or --set of a model's variable, chooses without it"
        notes = (f"the {image.tier} image's recommendation is in it: {listed}{how}", *notes)
    return Plan(image, body, choices, sizes, memory, notes)


def _refuse_clashes(wishes: Wishes) -> None:
    wrong = []
    if wishes.cloud == "COMMUNITY" and wishes.data_center:
        wrong.append("Community Cloud takes no data centre: leave out --datacenter, or use --cloud secure")
    if wishes.cloud == "COMMUNITY" and wishes.network_volume:
        wrong.append("network volumes exist only in Secure Cloud: use --cloud secure")
    if wishes.data_center and not _DATA_CENTER.fullmatch(wishes.data_center):
        wrong.append(f"--datacenter {wishes.data_center}: data centres have names such as US-KS-2 or EUR-IS-1")
    if not all(wishes.gpus):
        wrong.append("--gpu is empty: give a part of a GPU's name, such as 4090")
    wrong += [
        f"--secret {name}: a RunPod secret's name has letters, digits, dots, dashes and underscores"
        for name, secret in wishes.secrets.items()
        if secret and not _SECRET_NAME.fullmatch(secret)
    ]
    volume = wishes.network_volume
    if volume and wishes.data_center and wishes.data_center != volume.data_center:
        wrong.append(
            f"network volume {volume.id} is in {volume.data_center}, not in {wishes.data_center}: leave out "
            "--datacenter"
        )
    if volume and wishes.volume_gb:
        wrong.append("a network volume takes the place of the pod's own: give --volume or --network-volume, not both")
    wrong += wrong_variables(wishes.variables, wishes.secrets)
    if wrong:
        raise UsageError("\n".join(wrong))


def wrong_variables(variables: Mapping[str, str], secrets: Iterable[str]) -> list[str]:
    """What is wrong with the names that a person gave, one sentence a mistake."""
    wrong = [
        f"{name} is a secret, and a command line can be read by others: make it a RunPod secret and give "
        f"--secret {name}"
        for name in variables
        if name in SECRETS
    ]
    wrong += [
        f"--secret {name}: {name} is not a secret; give --set {name}=VALUE" for name in secrets if name not in SECRETS
    ]
    wrong += [
        f"--set {name}: hearmeman has no such variable; did you mean {near[0]}?"
        for name in strangers(variables)
        if (near := difflib.get_close_matches(name.upper(), _KNOWN, n=1, cutoff=0.8))
    ]
    return wrong


_KNOWN = frozenset({name.upper() for name in Settings.model_fields} | set(ALIASES))


def strangers(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables that are not hearmeman's own: for ComfyUI, torch or a node."""
    return {name: value for name, value in variables.items() if name not in _KNOWN}


def _recommended(wishes: Wishes, image: Image, catalogue: Catalogue) -> dict[str, str]:
    chosen = canonical(wishes.variables)
    choices = {"MODELS"} | {name for model in catalogue.models for name in model.when}
    wanted = not choices & set(chosen) if wishes.recommended is None else wishes.recommended
    return {name: value for name, value in image.recommended.items() if name not in chosen} if wanted else {}


def _environ(wishes: Wishes) -> dict[str, str]:
    """The pod's variables, with a stand-in for each secret: its value is known to RunPod alone."""
    environ = dict(wishes.variables)
    secrets = set(wishes.secrets)
    if environ.get("ENABLE_R2_SYNC", "").lower() in ("true", "1", "yes", "on"):
        secrets |= {"R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"}
    volume = wishes.network_volume
    if volume and "VOLUME_SIZE_GB" not in environ:
        # The quota of a network volume does not show in the filesystem.
        environ["VOLUME_SIZE_GB"] = str(volume.size)
    return environ | {name: _STANDINS.get(name, f"known-to-runpod-{name.lower()}") for name in sorted(secrets)}


_STANDINS = {"NOTIFY_URL": "https://known-to-runpod.example"}
"""Stand-ins for secrets whose values have a form."""


def _sizes(catalogue: Catalogue, models: Sequence[Model]) -> tuple[tuple[str, int], ...]:
    expected = {file.id: file.expected for file in catalogue.files}
    counted: set[str] = set()
    sizes = []
    for model in models:
        new = [name for name in model.files if name not in counted]
        counted.update(new)
        sizes.append((model.id, sum(expected[name] for name in new)))
    return tuple(sizes)


def _body(
    wishes: Wishes, image: Image, environ: Mapping[str, str], settings: Settings, model_bytes: int, gpu: Gpu, where: str
) -> dict[str, Any]:
    made = template(environ, image.defaults)
    env = {
        name: f"{{{{ RUNPOD_SECRET_{wishes.secrets[name]} }}}}" if wishes.secrets.get(name) else value
        for name, value in made["env"].items()
    } | strangers(wishes.variables)
    if len(env) + 3 > MOST_VARIABLES:
        raise UsageError(
            f"{len(env) + 3} variables, but RunPod takes at most {MOST_VARIABLES}: leave some at their defaults"
        )
    env["IMAGE_DIGEST"] = image.reference.partition("@")[2]
    http = [port for port in made["ports"] if port.endswith("/http")]
    if len(http) > MOST_HTTP_PORTS:
        raise UsageError(f"{len(http)} HTTP ports, but RunPod takes at most {MOST_HTTP_PORTS}")
    needed = math.ceil(model_bytes * MARGIN / 1e9)
    volume_gb = wishes.volume_gb
    if volume_gb is None:
        volume_gb = max(SMALLEST_VOLUME_GB, math.ceil((needed + OUTPUTS_GB) / 5) * 5)
    volume = wishes.network_volume
    room = volume.size if volume else volume_gb
    disk = wishes.disk_gb or DISK_GB + (0 if room else needed)
    if room and needed > room:
        raise UsageError(
            f"the models need {needed} GB but the volume has {room}: give --volume {needed + OUTPUTS_GB} or "
            "enable fewer"
        )
    if not room and needed > disk:
        raise UsageError(f"without a volume the models need {needed} GB of --disk, but it is {disk}")
    body: dict[str, Any] = {
        "name": wishes.name,
        "image": image.reference,
        "cloud": wishes.cloud,
        "gpu": {"id": gpu.id, "count": wishes.gpu_count},
        "disk": disk,
        "ports": made["ports"],
        "env": env,
        "startSsh": True,
    }
    if image.cuda_floor:
        body["gpu"]["minCudaVersion"] = image.cuda_floor
    if volume:
        body["mounts"] = {"network": [{"volumeId": volume.id, "path": settings.volume_dir}]}
    elif volume_gb:
        body["mounts"] = {"persistent": {"size": max(10, volume_gb), "path": settings.volume_dir}}
    if where:
        body["dataCenterIds"] = [where]
    if wishes.registry:
        body["registry"] = wishes.registry
    return body


def _is_text(file: File) -> bool:
    """A vocabulary or a configuration, which takes no room to speak of."""
    return file.to.endswith((".json", ".txt"))


def _notes(
    wishes: Wishes,
    image: Image,
    settings: Settings,
    choices: Sequence[Gpu],
    asked: Sequence[Model],
    models: Sequence[Model],
    catalogue: Catalogue,
) -> tuple[str, ...]:
    notes = []
    if not settings.gated:
        notes.append(
            "ComfyUI will be open to anyone who knows the pod's address: make a RunPod secret `access_token` "
            "and give "
            "--secret ACCESS_TOKEN"
        )
    if wishes.gpu_count > 1:
        notes.append(f"{wishes.gpu_count} GPUs: ComfyUI uses one of them, but you pay for all of them")
    if not image.cuda_floor:
        notes.append("the image's lowest CUDA version is not known: RunPod may choose a host with an older driver")
    notes += [
        f"{model.id} is left out on this GPU: it is for {' or '.join(model.tiers)}"
        for model in asked
        if model not in models
    ]
    small = [
        f"{model.id} ({model.vram_gb:g} GB)" for model in models if model.vram_gb and model.vram_gb > choices[0].memory
    ]
    if small:
        notes.append(f"{choices[0].id} has {choices[0].memory} GB; slow or too large for it: {', '.join(small)}")
    fetched = {name for model in models for name in model.files}
    unknown = [file.id for file in catalogue.files if file.id in fetched and not file.expected and not _is_text(file)]
    if unknown:
        notes.append(f"of unknown size, so the volume may be too small: {', '.join(unknown)}")
    if not wishes.network_volume and wishes.volume_gb != 0 and not wishes.ends_itself:
        notes.append(
            "the pod's volume is tied to one machine and is deleted with the pod; a stopped pod still pays for it"
        )
    if not (wishes.ends_itself or settings.idle_stop_minutes or settings.max_minutes):
        notes.append(
            "nothing ends the pod but you: --set IDLE_STOP_MINUTES=30 stops it once nobody has used it for so long, "
            "--set MAX_MINUTES=480 in any case"
        )
    if not wishes.ends_itself and "ENABLE_R2_SYNC" not in {name.upper() for name in wishes.variables}:
        notes.append("outputs stay on the pod: --set ENABLE_R2_SYNC=true and R2_ENDPOINT upload them to your bucket")
    return tuple(notes)
