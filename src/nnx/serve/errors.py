"""Why a request is not answered: a status and one message."""

from __future__ import annotations

import re

#: What messages begin with: the function that says them.
FUNCTION = re.compile(r"^[A-Za-z_]+(\.[A-Za-z_]+)*: ")


class RequestError(ValueError):
    """A request that cannot be answered.

    Attributes
    ----------
    status : int
        Of the answer, from 400 to 503.
    sentence : str
        What is wrong, for the person who wrote the request.
    headers : tuple of (bytes, bytes)
        Of the answer, beside those that all have.
    """

    def __init__(self, status: int, sentence: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers


def request_error(error: Exception) -> RequestError:
    """Return what an error says about the rows of a request, without the function that says it and without advice."""
    if isinstance(error, RequestError):
        return error
    told = getattr(error, "told", None)  # a table's problems, without the arguments that get round them in Python
    return RequestError(422, FUNCTION.sub("", told if isinstance(told, str) else str(error)).strip())
