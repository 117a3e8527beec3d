"""The catalogue: which models there are, which files they need, where each file comes from and goes to."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hearmeman.errors import HearmemanError
from hearmeman.models import mistakes
from hearmeman.models.folders import COMFYUI_FOLDERS

_ID = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class CatalogueError(HearmemanError):
    """The catalogue is missing or wrong; the message names every mistake in it."""


class Entry(BaseModel):
    """A frozen table of the catalogue that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class HuggingFace(Entry):
    """A file of a Hugging Face repository."""

    kind: Literal["huggingface"] = "huggingface"
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Owner and name."""
    path: str = Field(min_length=1)
    """Path inside the repository."""
    revision: str = "main"
    """Commit; a branch only as long as the file is not locked."""

    def __str__(self) -> str:
        return f"{self.repo}/{self.path}@{self.revision[:12]}"


class Snapshot(Entry):
    """All files of a Hugging Face repository, or those that `include` names."""

    kind: Literal["huggingface-snapshot"] = "huggingface-snapshot"
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Owner and name."""
    revision: str = "main"
    """Commit; a branch only as long as the snapshot is not locked."""
    include: tuple[str, ...] = ("*",)
    """Patterns of paths; one of them must match."""
    exclude: tuple[str, ...] = ("*.md", "*.png", "*.jpg", "*.gif", "*.mp4", "*.pdf")
    """Patterns of paths that are left out; hidden files always are."""

    def takes(self, path: str) -> bool:
        """Tell whether a path of the repository belongs to the snapshot."""
        if any(part.startswith(".") for part in path.split("/")):
            return False
        return any(fnmatch.fnmatch(path, p) for p in self.include) and not any(
            fnmatch.fnmatch(path, p) for p in self.exclude
        )

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision[:12]}"


class CivitAI(Entry):
    """A file of a model version on CivitAI."""

    kind: Literal["civitai"] = "civitai"
    model: int = Field(default=0, ge=0)
    """The model's number, for people; 0 where only the version's is known."""
    version: int = Field(gt=0)
    """The version's number."""
    file: str = ""
    """Name or number of one of the version's files; empty takes the primary one."""

    def __str__(self) -> str:
        model = f"model {self.model} " if self.model else ""
        return f"civitai {model}version {self.version}" + (f" file {self.file}" if self.file else "")


class GitLFS(Entry):
    """An object of a git repository's large file storage; the file's sha256 is its name there."""

    kind: Literal["git-lfs"] = "git-lfs"
    repo: str = Field(pattern="^https?://")
    """Address of the repository, as git clones it."""
    path: str = ""
    """Path inside the repository, for people."""

    def __str__(self) -> str:
        return f"{self.repo} {self.path}".strip()


class Web(Entry):
    """A plain address."""

    kind: Literal["url"] = "url"
    url: str = Field(pattern="^https?://")
    """The address."""

    def __str__(self) -> str:
        return self.url.partition("?")[0]


Source = Annotated[HuggingFace | Snapshot | CivitAI | GitLFS | Web, Field(discriminator="kind")]


class File(Entry):
    """One file, or one repository's snapshot, however many models need it."""

    id: str
    """Its name in this catalogue; of a snapshot's parts: the snapshot's, and the path."""
    source: Source
    """Where it comes from."""
    to: str
    """Where it goes, relative to MODELS_DIR: a file, or a snapshot's folder."""
    unnamed: bool = False
    """Whether the last part of `to` stands for a name that only the source knows."""
    size: int | None = Field(default=None, ge=0)
    """Bytes; None when not known."""
    about: int | None = Field(default=None, gt=0)
    """Bytes as a rounded figure, for space alone; given where `size` is not known."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Hash of its content; None when not known."""
    blob: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")
    """Git's hash of it, which is all that the Hub states for small files."""
    licence: str = ""
    """Licence as its source states it; empty when not known."""
    non_commercial: bool = False
    """Whether the licence forbids commercial use."""
    gate: str = ""
    """What must be done before the source gives it; empty: nothing."""
    no_mirror: str = ""
    """Why no copy of it may be kept where others could take it from, such as a cache; empty: it may."""
    evidence: Literal["confirmed", "single", "unverified"] = "confirmed"
    """How sure it is that the source has this file."""
    note: str = ""
    """What else a person should know."""
    stated: bool = False
    """Whether its source was asked what it has; not in the catalogue's own file."""

    @field_validator("to")
    @classmethod
    def _inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or str(path) != value or len(path.parts) < 2:
            raise ValueError("takes FOLDER/NAME below MODELS_DIR, without '..'")
        if any(part.startswith(".") for part in path.parts):
            raise ValueError("takes no hidden folder or file")
        return value

    @model_validator(mode="after")
    def _whole(self) -> File:
        if isinstance(self.source, GitLFS) and not (self.sha256 and self.size):
            raise ValueError("git-lfs needs size and sha256: they are the object's name")
        if isinstance(self.source, Snapshot) and (self.size or self.sha256):
            raise ValueError("a snapshot has no size or sha256 of its own: use `about`")
        return self

    @property
    def expected(self) -> int:
        """Bytes for the sum of space: exact, rounded, or 0 when nothing is known."""
        return self.about or 0 if self.size is None else self.size

    @property
    def sized(self) -> bool:
        """Whether anything is known of its size."""
        return self.size is not None or self.about is not None


class Model(Entry):
    """What a person asks for: a set of files that work together."""

    id: str = _ID
    """What MODELS names."""
    title: str
    """One line for people."""
    files: tuple[str, ...] = Field(min_length=1)
    """Ids of the files."""
    when: dict[str, str] = {}
    """Variables and their values that ask for it, all of them; empty: only MODELS does."""
    vram_gb: float | None = Field(default=None, gt=0)
    """GPU memory with which it runs well."""
    vram_gb_offload: float | None = Field(default=None, gt=0)
    """GPU memory with which it runs slowly, parts of it in RAM."""
    vram_estimated: bool = False
    """Whether the figures of GPU memory follow from the size of the weights; else someone has stated them."""
    tiers: tuple[str, ...] = ()
    """GPU tiers that may fetch it; empty: all."""
    needs: str = ""
    """What else must be there that is not fetched with it."""
    needs_one_of: tuple[str, ...] = ()
    """Models of this catalogue each of which satisfies `needs`."""
    nodes: tuple[str, ...] = ()
    """Node classes or processes that load it."""
    no_node: str = ""
    """Why nothing in the image loads it; empty: something does."""


class Folder(Entry):
    """A folder below MODELS_DIR that ComfyUI does not know by itself."""

    name: str
    """Its name."""
    read_by: str
    """Who looks into it."""


class Part(Entry):
    """One file of a snapshot."""

    path: str
    """Path inside the repository."""
    size: int
    """Bytes."""
    sha256: str | None = None
    """Hash of a large file's content."""
    blob: str | None = None
    """Git's hash of a small one."""

    @field_validator("path")
    @classmethod
    def _inside(cls, value: str) -> str:
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError("leads out of the folder")
        return value


class Listing(Entry):
    """What a snapshot consists of at one commit."""

    revision: str
    """The commit."""
    parts: tuple[Part, ...]
    """Its files."""
    chosen: bool = False
    """On a volume: whether a person asked for exactly this, which then counts more than what the image says."""

    @field_validator("parts")
    @classmethod
    def _distinct(cls, value: tuple[Part, ...]) -> tuple[Part, ...]:
        if alike := _alike("files", [part.path for part in value]):
            raise ValueError("; ".join(alike))
        return value


class Catalogue(Entry):
    """All files and models."""

    files: tuple[File, ...] = Field(alias="file", default=())
    models: tuple[Model, ...] = Field(alias="model", default=())
    folders: tuple[Folder, ...] = Field(alias="folder", default=())
    listings: dict[str, Listing] = Field(default={}, exclude=True)
    """Snapshots whose content is locked; not in the catalogue's own file."""

    @model_validator(mode="after")
    def _consistent(self) -> Catalogue:
        problems = _repeated("file", [f.id for f in self.files]) + _repeated("model", [m.id for m in self.models])
        problems += _repeated("destination", [f.to for f in self.files])
        problems += _alike("destinations", [f.to for f in self.files])
        problems += _nested([f.to for f in self.files])
        known = {f.id for f in self.files}
        for model in self.models:
            problems += [f"model {model.id} names the unknown file {name}" for name in model.files if name not in known]
            others = set(model.needs_one_of) - {m.id for m in self.models}
            problems += [f"model {model.id} needs the unknown model {name}" for name in sorted(others)]
        folders = COMFYUI_FOLDERS | {folder.name for folder in self.folders}
        for file in self.files:
            if file.to.partition("/")[0] not in folders:
                problems.append(f"file {file.id}: nothing loads from {file.to.partition('/')[0]}/: add a [[folder]]")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def parts(file: File, listing: Listing) -> tuple[File, ...]:
    """Give the files of a snapshot, each as a file of its own."""
    assert isinstance(file.source, Snapshot)
    repo, kept = file.source.repo, {"licence", "non_commercial", "gate", "no_mirror", "evidence"}
    return tuple(
        File(
            id=f"{file.id}/{part.path}",
            source=HuggingFace(repo=repo, path=part.path, revision=listing.revision),
            to=f"{file.to}/{part.path}",
            size=part.size,
            sha256=part.sha256,
            blob=part.blob,
            **file.model_dump(include=kept),
        )
        for part in listing.parts
    )


def _repeated(what: str, names: list[str]) -> list[str]:
    return [f"{what} {name} appears twice" for name in sorted({n for n in names if names.count(n) > 1})]


def _alike(what: str, names: Iterable[str]) -> list[str]:
    """Name those that a filesystem which folds case takes for one."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(name.casefold(), []).append(name)
    return [f"the {what} {' and '.join(group)} differ only in case" for group in groups.values() if len(group) > 1]


def _nested(places: list[str]) -> list[str]:
    known = {place.casefold() for place in places}
    inside = [(p, str(up)) for p in places for up in PurePosixPath(p).parents if str(up).casefold() in known]
    return [f"destination {p} lies inside the destination {up}" for p, up in inside]


def read(path: Path) -> Catalogue:
    """Read and check a catalogue.

    Raises:
        CatalogueError: it cannot be read, or what it says is wrong; every mistake is named.
    """
    fix = "Correct it, or set MODEL_CATALOGUE to another file."
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not TOML ({error})"
        raise CatalogueError(f"the catalogue {path} cannot be read: {why}. {fix}") from error
    try:
        return Catalogue.model_validate(raw)
    except ValidationError as error:
        wrong = "\n".join(f"  {_place(raw, item['loc'])}{mistakes.sentence(item)}" for item in error.errors())
        raise CatalogueError(f"the catalogue {path} is wrong:\n{wrong}\n{fix}") from error


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
