"""Any model by its address: civitai:VERSION@FOLDER, hf:OWNER/REPO/PATH@FOLDER, https://...@FOLDER, and pages' own links."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from pathlib import PurePosixPath
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pydantic import ValidationError

from hearmeman.errors import UsageError
from hearmeman.models import mistakes
from hearmeman.models.asked import nearest
from hearmeman.models.catalogue import Catalogue, CivitAI, File, HuggingFace, Model, Source, Web
from hearmeman.models.folders import COMFYUI_FOLDERS

_FORMS = "civitai:VERSION@FOLDER, hf:OWNER/REPO/PATH@FOLDER or https://HOST/PATH@FOLDER"
_SECRETS = frozenset(["access_token", "api_key", "apikey", "key", "password", "secret", "sig", "signature", "token"])
_LONGEST_ID = 150
_LOOPBACK = frozenset(["127.0.0.1", "localhost", "::1"])


class AddressError(UsageError):
    """An address that cannot be understood; the message says what it lacks."""


def with_addresses(known: Catalogue, addresses: Collection[str]) -> tuple[Catalogue, dict[str, str]]:
    """Add models by address to a catalogue; also tells the id that each address has there.

    Raises:
        AddressError: one of them cannot be understood, or would be where another file is.
    """
    files, models, ids = list(known.files), list(known.models), {}
    folders = COMFYUI_FOLDERS | {folder.name for folder in known.folders}
    for address in dict.fromkeys(addresses):
        file = parse(address, folders)
        there = {one.to.casefold(): one for one in files}.get(file.to.casefold())
        if there is not None and not _same(there.source, file.source):
            raise AddressError(
                f"{address!r} would be {file.to}, which is {there.source} already ({there.id}):"
                f" give it another name, @{PurePosixPath(file.to).parent}/NAME{PurePosixPath(file.to).suffix}"
            )
        if there is None:
            files.append(file)
        ids[address] = file.id
        if file.id not in {model.id for model in models}:
            models.append(_model(file.id, there or file))
    return known.model_copy(update={"files": tuple(files), "models": tuple(models)}), ids


def parse(address: str, folders: Collection[str] = COMFYUI_FOLDERS) -> File:
    """Understand one address.

    Raises:
        AddressError: it cannot be understood.
    """
    where, at, place = address.strip().rpartition("@")
    if not at:
        raise AddressError(f"{address!r} does not say which folder: end it with @FOLDER, one of {_list(folders)}")
    source, name = _source(where, address)
    to, unnamed = _to(place, source, name, address, folders)
    try:
        # Whether it may be passed on is for its page to say, and nobody has read that.
        unread = "it came by address, and nobody has read its licence"
        return File(id=f"{_short(source)}@{place}", source=source, to=to, unnamed=unnamed, no_mirror=unread)
    except ValidationError as error:
        raise AddressError(f"{address!r}: {mistakes.sentence(error.errors()[0])}") from error


def _model(name: str, file: File) -> Model:
    # An address is no id that the catalogue's own file could hold.
    return Model.model_construct(
        id=name, title=f"{file.source}, by address", files=(file.id,), nodes=(f"what reads {file.to.split('/')[0]}/",)
    )


def _same(one: Source, other: Source) -> bool:
    """Tell whether two sources are one, whatever the commit."""
    if isinstance(one, HuggingFace) and isinstance(other, HuggingFace):
        return (one.repo, one.path) == (other.repo, other.path)
    return one == other


def _short(source: Source) -> str:
    """Write a source as its shortest address, which is a file name of ours too; a query may be long, and is not shown."""
    if isinstance(source, Web):
        shown, _, query = source.url.partition("?")
        if query or len(quote(shown, safe="")) > _LONGEST_ID:
            parts, mark = urlsplit(shown), hashlib.sha256(source.url.encode()).hexdigest()[:12]
            return f"{parts.scheme}://{parts.netloc}/{mark}/{parts.path.rpartition('/')[2][-60:]}"
        return shown
    if isinstance(source, CivitAI):
        return f"civitai:{source.version}" + (f"/{source.file}" if source.file else "")
    assert isinstance(source, HuggingFace)
    revision = "" if source.revision == "main" else f"?revision={source.revision}"
    return f"hf:{source.repo}/{source.path}{revision}"


def _source(where: str, address: str) -> tuple[Source, str]:
    """Give the source and the file's name, which is empty where only the source knows it."""
    kind, _, rest = where.partition(":")
    if kind == "civitai":
        return _civitai(rest, address), ""
    if kind == "hf":
        path, _, query = rest.partition("?")
        return _hugging_face(unquote(path), (parse_qs(query).get("revision") or ["main"])[0], address)
    if kind in ("http", "https") and rest.startswith("//"):
        return _web(where, address)
    raise AddressError(f"{address!r} is not an address: use {_FORMS}")


def _civitai(rest: str, address: str) -> CivitAI:
    version, _, file = rest.partition("/")
    if not version.isdigit() or int(version) < 1:
        raise AddressError(
            f"{address!r}: civitai: is followed by the number of a version, as in the page's ?modelVersionId=NUMBER"
        )
    return CivitAI(version=int(version), file=file)


def _hugging_face(path: str, revision: str, address: str) -> tuple[HuggingFace, str]:
    owner, _, rest = path.strip("/").partition("/")
    repo, _, inside = rest.partition("/")
    if not (owner and repo):
        raise AddressError(f"{address!r}: hf: is followed by OWNER/REPO/PATH")
    if not inside or inside.endswith("/"):
        raise AddressError(f"{address!r} names a repository: add the path of the file that you want from it")
    try:
        return HuggingFace(repo=f"{owner}/{repo}", path=inside, revision=revision), PurePosixPath(inside).name
    except ValidationError as error:
        raise AddressError(f"{address!r}: {owner}/{repo} is not the name of a repository") from error


def _web(where: str, address: str) -> tuple[Source, str]:
    parts = urlsplit(where)
    query = parse_qs(parts.query)
    shown = f"{parts.scheme}://{parts.hostname}{parts.path}"
    if parts.username or parts.password or {name.lower() for name in query} & _SECRETS:
        raise AddressError(
            f"{shown}: leave passwords and keys out of addresses: HF_TOKEN and CIVITAI_API_KEY hold them"
        )
    host = (parts.hostname or "").lower()
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise AddressError(f"{shown}: begin it with https://, since nothing else proves who sends the file")
    if host in ("civitai.com", "www.civitai.com", "civitai.red"):
        return _civitai_page(parts.path, query, address), ""
    if host in ("huggingface.co", "hf.co"):
        found = re.fullmatch(r"/([^/]+/[^/]+)/(?:resolve|blob|raw)/([^/]+)/(.+)", unquote(parts.path))
        if found is None:
            raise AddressError(f"{address!r} is a page, not a file: copy the link of one of its files")
        return _hugging_face(f"{found[1]}/{found[3]}", found[2], address)
    return Web(url=where), unquote(PurePosixPath(parts.path).name)


def _civitai_page(path: str, query: dict[str, list[str]], address: str) -> CivitAI:
    download = re.fullmatch(r"/api/download/models/(\d+)", path)
    number = download[1] if download else (query.get("modelVersionId") or [""])[0]
    if not number.isdigit():
        raise AddressError(
            f"{address!r} names a model, not one of its versions: choose the version on its page,"
            " whose address then ends with ?modelVersionId=NUMBER"
        )
    return CivitAI(version=int(number), file=(query.get("fileId") or [""])[0])


def _to(place: str, source: Source, name: str, address: str, folders: Collection[str]) -> tuple[str, bool]:
    """Give where the file goes, and whether its source has yet to say its name."""
    parts = [part for part in unquote(place).split("/") if part]
    if not parts:
        raise AddressError(f"{address!r} does not say which folder: end it with @FOLDER, one of {_list(folders)}")
    if parts[0] not in folders:
        raise AddressError(
            f"{address!r}: nothing loads from a folder {parts[0]!r}{nearest(parts[0], folders)}; choose one of "
            f"{_list(folders)}"
        )
    if len(parts) > 1 and "." in parts[-1]:
        return "/".join(parts), False
    if isinstance(source, CivitAI) and "." not in source.file:
        return "/".join([*parts, f"civitai-{source.version}" + (f"-{source.file}" if source.file else "")]), True
    name = source.file if isinstance(source, CivitAI) else name
    if not name:
        raise AddressError(f"{address!r} has no file name: give it one, @{place}/NAME.safetensors")
    return "/".join([*parts, name]), False


def _list(folders: Collection[str]) -> str:
    return ", ".join(sorted(folders))
