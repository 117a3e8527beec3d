"""What every action of `hearmeman models` works with: settings, catalogue, what is asked for, the models folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hearmeman.log import log
from hearmeman.models import lock
from hearmeman.models.added import Added
from hearmeman.models.address import AddressError, with_addresses
from hearmeman.models.asked import asked_for, for_tier, is_address, listed
from hearmeman.models.catalogue import Catalogue, Model, read
from hearmeman.models.folders import COMFYUI_FOLDERS
from hearmeman.models.lock import Lock
from hearmeman.models.notes import Host
from hearmeman.models.plan import Plan, check_space, make_plan
from hearmeman.models.store import Store
from hearmeman.settings import Settings, load


@dataclass(frozen=True)
class Context:
    """What every action works with."""

    settings: Settings
    """The pod's settings."""
    plain: Catalogue
    """What can be fetched: the catalogue's own file, and models by address."""
    locked: Lock
    """What the catalogue's lock says."""
    store: Store
    """The models folder."""
    added: Added
    """What was added to the volume by address."""
    models: tuple[Model, ...]
    """What the settings and the command ask for."""
    left_out: tuple[Model, ...]
    """What they ask for and this GPU's tier may not have."""
    host: Host
    """The machine."""

    @property
    def catalogue(self) -> Catalogue:
        """What can be fetched, with what its lock says and what sources have stated on this volume until now."""
        return lock.apply(self.plain, self.locked, self.store.read_stated())

    @property
    def folders(self) -> frozenset[str]:
        """Folders of the models folder that someone looks into."""
        return COMFYUI_FOLDERS | {folder.name for folder in self.plain.folders}

    def plan(self) -> Plan:
        """Look at the disk and plan."""
        known = self.catalogue
        wanted = {name for model in self.models for name in model.files}
        quota = int(self.settings.volume_size_gb * 1e9)
        disk = self.store.look(known, wanted, Path(self.settings.volume_dir), quota)
        return make_plan(known, self.models, disk, self.host, self.left_out)

    def check_space(self, made: Plan) -> None:
        """Refuse what does not fit.

        Raises:
            DiskTooSmallError: with the figures.
        """
        check_space(made, self.settings.models_path, self.settings.volume_size_gb)


def make_context(environ: Mapping[str, str], names: Sequence[str] = ()) -> Context:
    """Read settings and catalogue and decide which models are asked for; `names` are asked for beside the settings'.

    Raises:
        HearmemanError: settings, catalogue or lock are wrong, or a model is unknown.
    """
    settings = load(environ)
    path, added = Path(settings.model_catalogue), Added(Path(settings.fetch_path))
    wanted = [name for name in (*names, *listed(settings.models)) if is_address(name)]
    plain, ids = with_addresses(read(path), wanted)
    for address in added.read():
        try:
            plain, found = with_addresses(plain, [address])
        except AddressError as error:
            # What an earlier image understood must not end this one's start.
            log("models.added", ignored=address, why=error)
        else:
            ids |= found
    names = [name for name in names if not is_address(name)] + list(ids.values())
    asked = asked_for(plain, settings, names)
    host = _host(settings, any(m.tiers or m.vram_gb for m in asked))
    models = for_tier(asked, settings, host.tier, names)
    left_out = tuple(model for model in asked if model not in models)
    store = Store(Path(settings.models_path))
    return Context(settings, plain, lock.read(lock.place(path)), store, added, models, left_out, host)


def _host(settings: Settings, matters: bool) -> Host:
    hf_token, civitai_key = settings.hf_token is not None, settings.civitai_api_key is not None
    if not matters:
        return Host(hf_token=hf_token, civitai_key=civitai_key)
    from hearmeman.tune import machine, tuner

    gpus = machine.nvidia().gpus
    vram = gpus[0].vram_mib / 1024 if gpus else None
    tier = settings.gpu_tier if settings.gpu_tier != "auto" else tuner.row_for(gpus[0].vram_mib if gpus else 0)[1]
    return Host(tier, vram, hf_token, civitai_key)
