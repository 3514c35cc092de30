"""The page at `/`: speak, or drop a file, and see the words as they are decided.

The page is plain HTML, CSS and modules of JavaScript in the folder `page`. It asks no other host
for anything, and its headers forbid it to.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import PurePosixPath

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

FOLDER = "/page/"
"""Path of the page's files. They are nothing but the page's code, and need no key."""

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self' ws: wss:",  # by 'self' alone Safari before 15.4 opens no socket
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Headers of every file of the page."""

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def _read_files() -> dict[str, bytes]:
    """The page's files by name: what is not among them cannot be asked for."""
    found = files("kiku.serve").joinpath("page").iterdir()
    return {one.name: one.read_bytes() for one in found if PurePosixPath(one.name).suffix in _KINDS}


class Page:
    """The page's files, read once."""

    def __init__(self) -> None:
        """Read the files."""
        self.files = _read_files()

    def front(self, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """The page itself; with 401 it asks for the key."""
        return self._response("index.html", status, headers or {})

    def file(self, name: str) -> Response:
        """One of the page's files."""
        if name not in self.files:
            return PlainTextResponse(f"the page has no file {name!r}", 404, dict(HEADERS))
        return self._response(name, 200, {})

    def _response(self, name: str, status: int, headers: Mapping[str, str]) -> Response:
        kind = _KINDS[PurePosixPath(name).suffix]
        return Response(self.files[name], status, {**HEADERS, **headers}, kind)


def page_routes(page: Page) -> list[BaseRoute]:
    """The routes of the page and its files."""

    async def front(request: Request) -> Response:
        return page.front()

    async def file(request: Request) -> Response:
        return page.file(request.path_params["name"])

    return [Route("/", front), Route(FOLDER + "{name}", file)]
