"""Requests that are refused: a status and a sentence, which is all that the other side is told."""

from __future__ import annotations


class Refused(Exception):
    """A request that is not served; str() is a sentence for the person who made it.

    status: of HTTP. retry_seconds: where the same request may succeed later, after how long to try again.
    """

    def __init__(self, status: int, sentence: str, *, retry_seconds: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.retry_seconds = retry_seconds


def busy(what: str) -> Refused:
    """The refusal of a server that has too much to do."""
    return Refused(503, f"The server is busy: {what}. Try again in a moment.", retry_seconds=1)
