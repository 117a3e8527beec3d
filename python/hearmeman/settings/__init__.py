"""The pod's variables: how one is declared, all of them, reading them, and `hearmeman env`."""

from hearmeman.settings.load import SettingsError, canonical, load, load_for_boot, parse
from hearmeman.settings.settings import ALIASES, GROUPS, NAMES, RUNPOD_SECRETS, SECRETS, Settings

__all__ = [
    "ALIASES",
    "GROUPS",
    "NAMES",
    "RUNPOD_SECRETS",
    "SECRETS",
    "Settings",
    "SettingsError",
    "canonical",
    "load",
    "load_for_boot",
    "parse",
]
