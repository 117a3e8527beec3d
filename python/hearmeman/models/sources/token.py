"""A token for one source, which is left out once that source has refused it, so that public files still come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from pydantic import SecretStr

from hearmeman.log import log
from hearmeman.models.errors import FetchError, GatedError

Found = TypeVar("Found")


class TokenRefusedError(GatedError):
    """The source does not take the token, whatever was asked for."""


class Token:
    """The secret that the variable `name` holds; shared by threads."""

    def __init__(self, name: str, secret: SecretStr | None) -> None:
        self.name = name
        self._value = secret.get_secret_value() if secret else ""
        self._refused: TokenRefusedError | None = None
        self._lock = threading.Lock()

    def ask(self, question: Callable[[str], Found]) -> Found:
        """Give the answer to a question that takes the token; once it is refused, to the question without it.

        Raises:
            TokenRefusedError: it is refused, and the source wants one.
        """
        if self._value and self._refused is None:
            try:
                return question(self._value)
            except TokenRefusedError as error:
                self._note(error)
        try:
            return question("")
        except FetchError as error:
            if self._refused is None:
                raise
            # Without a token private files do not even exist, so the refusal says more.
            raise TokenRefusedError(f"{self._refused}; without it: {error}") from error

    def _note(self, error: TokenRefusedError) -> None:
        with self._lock:
            if self._refused is None:
                log("token.refused", variable=self.name, why=str(error), then="asking without it")
            self._refused = error
