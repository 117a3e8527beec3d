"""The catalogue: which models there are, which files they need, where each file comes from and goes to."""

from __future__ import annotations

import tomllib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hearmeman.errors import HearmemanError


class CatalogueError(HearmemanError):
    """The catalogue is missing or wrong; the message names every mistake in it."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HuggingFace(_Entry):
    """A file of a Hugging Face repository."""

    kind: Literal["huggingface"]
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Owner and name."""
    path: str = Field(min_length=1)
    """Path inside the repository."""
    revision: str = "main"
    """Commit; a branch only as long as the file is not locked."""

    def __str__(self) -> str:
        return f"{self.repo}/{self.path}@{self.revision[:12]}"


class File(_Entry):
    """One file, however many models need it."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Its name in this catalogue."""
    source: Annotated[HuggingFace, Field()]
    """Where it comes from."""
    to: str
    """Where it goes, relative to MODELS_DIR."""
    size: int | None = Field(default=None, gt=0)
    """Bytes; None when not established."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Hash of its content; None when not established."""
    licence: str | None = None
    """Licence as its source states it."""

    @field_validator("to")
    @classmethod
    def _inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or str(path) != value or len(path.parts) < 2:
            raise ValueError("takes FOLDER/NAME below MODELS_DIR, without '..'")
        return value


class Model(_Entry):
    """What a person asks for: a set of files that work together."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What MODELS names."""
    title: str
    """One line for people."""
    files: tuple[str, ...] = Field(min_length=1)
    """Ids of the files."""
    when: dict[str, str] = {}
    """Variables and their values that ask for it; empty: only MODELS does."""


class Catalogue(_Entry):
    """All files and models."""

    files: tuple[File, ...] = Field(alias="file")
    models: tuple[Model, ...] = Field(alias="model")

    @model_validator(mode="after")
    def _consistent(self) -> Catalogue:
        problems = _repeated("file", [f.id for f in self.files]) + _repeated("model", [m.id for m in self.models])
        problems += _repeated("destination", [f.to for f in self.files])
        known = {f.id for f in self.files}
        for model in self.models:
            problems += [f"model {model.id} names the unknown file {name}" for name in model.files if name not in known]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def file(self, id: str) -> File:
        """Give the file of that id."""
        return next(f for f in self.files if f.id == id)


def _repeated(what: str, names: list[str]) -> list[str]:
    return [f"{what} {name} is there twice" for name in sorted({n for n in names if names.count(n) > 1})]


def read(path: Path) -> Catalogue:
    """Read and check a catalogue.

    Raises:
        CatalogueError: it cannot be read, or what it says is wrong; every mistake is named.
    """
    mend = "Correct it, or set MODEL_CATALOGUE to another file."
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not TOML ({error})"
        raise CatalogueError(f"the catalogue {path} cannot be read: {why}. {mend}") from error
    try:
        return Catalogue.model_validate(raw)
    except ValidationError as error:
        told = "\n".join(f"  {_place(raw, item['loc'])}{item['msg']}" for item in error.errors())
        raise CatalogueError(f"the catalogue {path} is wrong:\n{told}\n{mend}") from error


def _place(raw: dict[str, Any], where: tuple[int | str, ...]) -> str:
    """Name the entry by its id rather than its number."""
    if len(where) > 1 and isinstance(where[1], int):
        try:
            name = raw[str(where[0])][where[1]]["id"]
        except (KeyError, TypeError):
            name = f"number {where[1] + 1}"
        rest = ".".join(str(part) for part in where[2:])
        return f"{where[0]} {name}{': ' + rest if rest else ''}: "
    return "".join(f"{part}: " for part in where)
