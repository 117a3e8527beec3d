"""What every action of `hearmeman models` works with: settings, catalogue, what is asked for, the models folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hearmeman.models import lock
from hearmeman.models.asked import asked_for, for_tier
from hearmeman.models.catalogue import Catalogue, Model, read
from hearmeman.models.notes import Host
from hearmeman.models.plan import Plan, check_space, make_plan
from hearmeman.models.store import Store
from hearmeman.settings import Settings, load


@dataclass(frozen=True)
class Context:
    """What every action works with."""

    settings: Settings
    """The pod's settings."""
    catalogue: Catalogue
    """What can be fetched, with what its lock says."""
    store: Store
    """The models folder."""
    models: tuple[Model, ...]
    """What the settings and the command ask for."""
    left_out: tuple[Model, ...]
    """What they ask for and this GPU's tier may not have."""
    host: Host
    """The machine."""

    def plan(self) -> Plan:
        """Look at the disk and plan."""
        wanted = {name for model in self.models for name in model.files}
        quota = int(self.settings.volume_size_gb * 1e9)
        disk = self.store.look(self.catalogue, wanted, Path(self.settings.volume_dir), quota)
        return make_plan(self.catalogue, self.models, disk, self.host, self.left_out)

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
    path = Path(settings.model_catalogue)
    known = lock.apply(read(path), path)
    asked = asked_for(known, settings, names)
    host = _host(settings, any(m.tiers or m.vram_gb for m in asked))
    models = for_tier(asked, settings, host.tier, names)
    left_out = tuple(model for model in asked if model not in models)
    return Context(settings, known, Store(Path(settings.models_path)), models, left_out, host)


def _host(settings: Settings, matters: bool) -> Host:
    hf_token, civitai_key = settings.hf_token is not None, settings.civitai_api_key is not None
    if not matters:
        return Host(hf_token=hf_token, civitai_key=civitai_key)
    from hearmeman.tune import machine, tuner

    gpus = machine.nvidia().gpus
    vram = gpus[0].vram_mib / 1024 if gpus else None
    tier = settings.gpu_tier if settings.gpu_tier != "auto" else tuner.row_for(gpus[0].vram_mib if gpus else 0)[1]
    return Host(tier, vram, hf_token, civitai_key)
