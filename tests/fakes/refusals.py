"""Error responses of the fake server, with the messages of the real one."""

from __future__ import annotations

__all__ = ["Refused"]

SENTENCES = {
    400: "Request malformed.",
    401: "Access requires authentication.",
    403: "Access forbidden.",
    404: "Resource not found.",
    405: "Request method not allowed on this resource.",
    409: "Request conflicts with state of server.",
    412: "Resource state does not match requested preconditions.",
    415: "The request input type is not supported.",
    503: "The service is temporarily unavailable.",
}


class Refused(Exception):
    """A request is answered with an error.

    Args:
        status: The HTTP status.
        detail: Text after ``Detail:``; empty to send only the standard message.
        body: The whole body, in place of the standard message.
        headers: Additional headers.
    """

    def __init__(
        self, status: int, detail: str = "", *, body: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, detail or body)
        self.status = status
        sentence = SENTENCES.get(status, "")
        self.body = body if body is not None else f"{sentence} Detail: {detail}\n" if detail else f"{sentence}\n"
        self.headers = headers or {}
