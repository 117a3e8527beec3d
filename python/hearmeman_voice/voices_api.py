"""The voice library over HTTP: list, upload, replace, rename, delete, aliases and the default voice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.responses import FileResponse, Response

from hearmeman_voice.engine import Voice
from hearmeman_voice.errors import ApiError
from hearmeman_voice.served import REFUSALS, Responses, Served
from hearmeman_voice.voices import BadName, BadSound, NameTaken, ReadOnlyVoice, UnknownVoice

Result = TypeVar("Result")


@contextmanager
def _as_answers(named: str = "voice_name") -> Iterator[None]:
    """Turn the library's errors into answers; `named` is the field with the new name."""
    try:
        yield
    except UnknownVoice as problem:
        raise ApiError(404, problem.message, code="voice_not_found") from None
    except NameTaken as problem:
        raise ApiError(409, str(problem), param=named, code="voice_exists", useless=True) from None
    except BadName as problem:
        raise ApiError(400, str(problem), param=named, code="invalid_value") from None
    except BadSound as problem:
        raise ApiError(400, str(problem), param="voice_file", code="invalid_audio") from None
    except ReadOnlyVoice as problem:
        raise ApiError(403, str(problem), code="voice_read_only") from None


async def _beside(do: Callable[[], Result], named: str = "voice_name") -> Result:
    """Do it in a thread: a disk can be slow, and speech must not stop."""
    with _as_answers(named):
        return await asyncio.to_thread(do)


def library(served: Served) -> APIRouter:
    """The library's addresses."""
    store = served.store
    router = APIRouter(tags=["voices"])
    known: Responses = {code: found for code, found in REFUSALS.items() if code in (400, 413)}
    changed: Responses = {404: REFUSALS[400], 403: REFUSALS[400], 409: REFUSALS[400], **known}

    def described(voice: Voice, others: dict[str, str] | None = None) -> dict[str, Any]:
        others = store.aliases() if others is None else others
        return {
            "id": voice.id,
            "name": voice.id,
            "voice_id": voice.id,
            "language": voice.language,
            "builtin": voice.id in {one.id for one in store.builtin()},
            "aliases": [alias for alias, whose in others.items() if whose == voice.id],
            "file_size": voice.clip.stat().st_size if voice.clip else None,
        }

    def listed() -> dict[str, Any]:
        others = store.aliases()
        data = [described(voice, others) for voice in store.list()]
        return {
            "object": "list",
            "voices": data,
            "data": data,
            "count": len(data),
            "default": store.default,
            "aliases": others,
        }

    @router.get("/voices")
    def voices() -> dict[str, Any]:
        """All voices, each with its aliases."""
        return listed()

    @router.post("/voices", status_code=201, responses=changed)
    async def upload(
        voice_file: Annotated[
            UploadFile, File(description="a recording of one person, 6 to 20 s, in any usual format")
        ],
        voice_name: Annotated[str, Form(description="its name", examples=["my-voice"])],
        language: Annotated[
            str | None, Form(description="the voice's language, unless a request names another")
        ] = None,
    ) -> dict[str, Any]:
        """Add a voice. The file is decoded first: only a real recording is kept."""
        spoken = _language(language)
        data = await voice_file.read()
        voice = await _beside(lambda: store.add(voice_name, data, spoken))
        return {"message": f"voice {voice.id!r} was added", "voice": described(voice)}

    @router.get("/voices/all-names")
    def all_names() -> dict[str, Any]:
        """All names and aliases."""
        names = served.names()
        return {"voice_names": names, "count": len(names)}

    @router.get("/voices/default", responses=changed)
    def default() -> dict[str, Any]:
        """The voice that speaks by default."""
        return {"default_voice": store.default}

    @router.post("/voices/default", responses=changed)
    async def set_default(
        voice_name: Annotated[str | None, Form()] = None,
        by_query: Annotated[str | None, Query(alias="voice_name")] = None,
    ) -> dict[str, Any]:
        """Choose it."""
        name = _given(voice_name or by_query, "voice_name")
        await _beside(lambda: setattr(store, "default", name))
        return {"default_voice": store.default}

    @router.delete("/voices/default", responses=changed)
    async def reset_default() -> dict[str, Any]:
        """Go back to the image's own default voice."""
        await _beside(lambda: setattr(store, "default", None))
        return {"default_voice": store.default}

    @router.get("/voices/{name}", responses=changed)
    def one(name: str) -> dict[str, Any]:
        """One voice, by name or alias."""
        with _as_answers():
            return described(store.get(name))

    @router.put("/voices/{name}", responses=changed)
    async def change(
        name: str,
        voice_file: Annotated[UploadFile | None, File(description="another recording")] = None,
        new_name: Annotated[str | None, Form(description="another name")] = None,
        language: Annotated[str | None, Form()] = None,
        by_query: Annotated[str | None, Query(alias="new_name")] = None,
    ) -> dict[str, Any]:
        """Change a voice's recording, name or language, or several at once."""
        called = new_name or by_query or None
        spoken = _language(language)
        if voice_file is None and called is None and spoken is None:
            raise ApiError(
                400,
                "send voice_file, new_name, language, or several of these",
                param="voice_file",
                code="missing_required_parameter",
            )
        data = None if voice_file is None else await voice_file.read()
        voice = await _beside(lambda: store.change(name, data, called, spoken), "new_name")
        return {"message": "done", "voice": described(voice)}

    @router.delete("/voices/{name}", responses=changed)
    async def delete(name: str) -> dict[str, Any]:
        """Delete an uploaded voice and its aliases."""
        await _beside(lambda: store.delete(name))
        return {"message": f"voice {name!r} was deleted"}

    @router.get("/voices/{name}/download", response_class=FileResponse, responses=changed)
    def download(name: str) -> Response:
        """The recording as a WAV."""
        with _as_answers():
            voice = store.get(name)
        if voice.clip is None:
            raise ApiError(404, f"{voice.id!r} is the engine's own voice and has no recording", code="no_recording")
        return FileResponse(voice.clip, media_type="audio/wav", filename=f"{voice.id}.wav")

    @router.get("/voices/{name}/aliases", responses=changed)
    def aliases(name: str) -> dict[str, Any]:
        """A voice's aliases."""
        with _as_answers():
            found = described(store.get(name))["aliases"]
        return {"voice_name": name, "aliases": found, "count": len(found)}

    @router.post("/voices/{name}/aliases", responses=changed)
    async def add_alias(
        name: str,
        alias: Annotated[str | None, Form()] = None,
        by_query: Annotated[str | None, Query(alias="alias")] = None,
    ) -> dict[str, Any]:
        """Add an alias."""
        added = _given(alias or by_query, "alias")
        await _beside(lambda: store.add_alias(name, added), "alias")
        return {"message": f"{added!r} is now an alias of {name!r}"}

    @router.delete("/voices/{name}/aliases/{alias}", responses=changed)
    async def remove_alias(name: str, alias: str) -> dict[str, Any]:
        """Remove an alias."""
        with _as_answers():
            if store.aliases().get(alias) != store.get(name).id:
                raise UnknownVoice(f"{alias[:60]!r} is not an alias of {name[:60]!r}")
        await _beside(lambda: store.remove_alias(alias))
        return {"message": f"{alias!r} is no longer an alias of {name!r}"}

    return router


def _given(value: str | None, name: str) -> str:
    if not value:
        raise ApiError(
            400, f"{name}: it is missing; send it as a form field", param=name, code="missing_required_parameter"
        )
    return value


def _language(asked: str | None) -> str | None:
    """A language's code, not necessarily one of this engine's. Raises: ApiError if it does not look like one."""
    if not asked:
        return None
    code = asked.strip().lower()
    if not (2 <= len(code) <= 8 and code.replace("-", "").isascii() and code.replace("-", "").isalpha()):
        raise ApiError(
            400, f"language: {asked[:40]!r} is not a code such as en or zh-cn", param="language", code="invalid_value"
        )
    return code
