"""The names of XTTS' studio speakers, read from their file without torch, and without running what a pickle may hold."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any


def names(path: Path) -> tuple[str, ...]:
    """The speakers in the file, which is torch's: a ZIP with a pickled dictionary, name to latents.

    Source: TTS/tts/layers/xtts/xtts_manager.py. Raises: ValueError if it is not such a file; OSError.
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
        raise ValueError(f"{path} is not a file of XTTS speakers: it has no names")
    return tuple(found)


class _Outline(pickle.Unpickler):
    """Reads only names: every tensor becomes None, and only torch's own classes are allowed."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module.partition(".")[0] == "torch":
            return _nothing
        raise pickle.UnpicklingError(f"it contains {module}.{name}, which does not belong there")

    def persistent_load(self, pid: Any) -> None:
        return None


def _nothing(*_: object) -> None:
    return None
