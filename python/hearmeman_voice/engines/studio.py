"""The names of XTTS' studio speakers, read from their file without torch, and without running what a pickle may hold."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any


def names(path: Path) -> tuple[str, ...]:
    """The speakers in the file, which is torch's: a ZIP with a pickled dictionary, name to latents.

    Source: TTS/tts/layers/xtts/xtts_manager.py. Raises: ValueError when it is no such file; OSError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(pickled) as file:
                found = _Outline(file).load()
    except OSError:
        raise
    except Exception as problem:
        # Damaged bytes raise almost anything in an unpickler.
        raise ValueError(f"{path} is not a file of XTTS speakers: {problem}") from problem
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"{path} is not a file of XTTS speakers: it holds no names")
    return tuple(found)


class _Outline(pickle.Unpickler):
    """Reads names and nothing else: every tensor becomes None, and nothing but torch's own parts is allowed."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module.partition(".")[0] == "torch":
            return _nothing
        raise pickle.UnpicklingError(f"{module}.{name} has no place in it")

    def persistent_load(self, pid: Any) -> None:
        return None


def _nothing(*_: object) -> None:
    return None
