"""The API's error answers: in OpenAI's format, with headers that say when to try again."""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hearmeman_voice.log import log

LONGEST_WAIT = 30.0
"""The most seconds for Retry-After: OpenAI's client gives up at once if it is asked to wait longer."""


class ApiError(HTTPException):
    """An error answer; FastAPI passes it on wherever it is raised, since it is a FastAPI exception.

    Its body is `{"error": {message, type, param, code}}`, source: OpenAI's API reference, "Error codes".
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        useless: bool = False,
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after
        """Seconds after which trying again makes sense."""
        self.useless = useless
        """Whether the same request will keep failing, although its status suggests otherwise."""

    def body(self) -> dict[str, Any]:
        """OpenAI's error object, and `detail` for clients of other servers."""
        return {"error": self.error(), "detail": self.message}

    def error(self) -> dict[str, Any]:
        """The contents of `error`."""
        return {"message": self.message, "type": _kind(self.status), "param": self.param, "code": self.code}

    def advice(self) -> dict[str, str]:
        """The headers that OpenAI's client and others follow."""
        found: dict[str, str] = {}
        if self.retry_after is not None:
            wait = min(max(self.retry_after, 0.1), LONGEST_WAIT)
            found |= {"Retry-After": str(math.ceil(wait)), "Retry-After-Ms": str(round(wait * 1000))}
        if self.useless:
            found["X-Should-Retry"] = "false"
        return found


def _kind(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def disk_error(problem: OSError) -> ApiError:
    """Say why a file could not be written."""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return ApiError(
            507, "the pod's disk is full: delete files or voices, then try again", code="disk_full", useless=True
        )
    if problem.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return ApiError(507, f"the folder cannot be written: {problem.strerror}", code="read_only", useless=True)
    return ApiError(500, f"the disk failed: {problem.strerror or problem}", code="disk_failed")


def install(app: FastAPI) -> None:
    """Answer every error of the app in this format."""

    async def own(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return JSONResponse(error.body(), error.status, error.advice())

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = _from_validation(error)
        return JSONResponse(found.body(), found.status)

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        found = ApiError(error.status_code, _sentence(error), code=_code(error.status_code))
        return JSONResponse(found.body(), found.status, error.headers)

    async def disk(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, OSError)
        found = disk_error(error)
        log("disk.failed", why=found.message)
        return JSONResponse(found.body(), found.status, found.advice())

    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        found = ApiError(500, "an internal error of this server; its log says more", code="internal_error")
        return JSONResponse(found.body(), found.status)

    app.add_exception_handler(ApiError, own)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(OSError, disk)
    app.add_exception_handler(Exception, unexpected)


def _from_validation(error: RequestValidationError) -> ApiError:
    first: Mapping[str, Any] = error.errors()[0]
    where = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header", "openai", "devnen")]
    ctx = first.get("ctx", {})
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {ctx['error']}", code="invalid_json")
    if not where:
        # Without that header FastAPI reads JSON as text.
        return ApiError(
            400, "the body is not a JSON object: send one with Content-Type: application/json", code="invalid_body"
        )
    name = ".".join(where)
    if first["type"] == "missing":
        return ApiError(400, f"{name} is missing", param=name, code="missing_required_parameter")
    message = str(ctx["error"]) if first["type"] == "value_error" else _message(first["type"], ctx)
    return ApiError(400, f"{name}: {message}", param=name, code="invalid_value")


_MESSAGES = {
    "missing": "it is missing",
    "string_type": "it must be text",
    "string_too_short": "it is empty",
    "float_type": "it must be a number",
    "float_parsing": "it must be a number",
    "finite_number": "it must be a finite number",
    "int_type": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "bool_type": "it must be true or false",
    "bool_parsing": "it must be true or false",
    "literal_error": "it must be {expected}",
    "greater_than": "it must be more than {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than_equal": "it must be at most {le}",
}
"""What pydantic finds wrong -> what a client reads; pydantic's own words are about Python's types."""


def _message(kind: str, ctx: Mapping[str, Any]) -> str:
    return _MESSAGES.get(kind, "it is not a valid value for this field").format_map(ctx)


def _sentence(error: HTTPException) -> str:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return "there is no such address here; /docs lists them"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        return f"this address does not support that method; it supports {allowed}"
    return str(error.detail)


def _code(status: int) -> str:
    return HTTPStatus(status).phrase.lower().replace(" ", "_")
