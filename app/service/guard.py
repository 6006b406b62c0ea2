"""The door: every request passes here before anything else sees it, and every response on its way out."""

from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.service.refusals import Refusal, refuse
from app.service.settings import ServiceSettings, is_loopback
from app.service.tokens import ANYBODY, Rates, Token, Tokens

__all__ = ["COOKIE", "OPEN_PATHS", "Guard"]

COOKIE = "lookalike"
"""Holds the token of whoever signed in on the page; scripts cannot read it and other sites do not send it."""

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz"})
"""What everybody may fetch, with the page's files under /static/: nothing of the gallery is in it."""

_ADMIN_PATHS = frozenset({"/metrics"})
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "media-src 'self' blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_ALWAYS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


class Guard:
    """Lets through who came by the right name, from the right page, with a token where tokens are asked for, not too often.

    Args:
        app: what is guarded.
        settings: of the service.
        tokens: who is known.
    """

    def __init__(self, app: ASGIApp, *, settings: ServiceSettings, tokens: Tokens) -> None:
        self._app, self._tokens = app, tokens
        self._hosts = _host_names(settings)
        self._searches, self._looks = Rates(settings.searches_a_minute), Rates(settings.looks_a_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            scope.setdefault("state", {})["who"] = self._let_in(scope)
        except Refusal as refusal:
            return await refuse(refusal)(scope, receive, send_guarded)
        return await self._app(scope, receive, send_guarded)

    def _let_in(self, scope: Scope) -> Token:
        """Who asks.

        Raises:
            Refusal: they are not let in.
        """
        headers, path = Headers(scope=scope), scope["path"]
        self._check_host(headers)
        _check_origin(headers, is_page=path == "/")
        if path in OPEN_PATHS or path.startswith("/static/"):
            return ANYBODY
        if not self._tokens:
            return ANYBODY
        who = self._tokens.find(_secret(headers) or "")
        if who is None:
            raise Refusal(401, "this service wants a token: send `Authorization: Bearer TOKEN`, or sign in on its page")
        if path in _ADMIN_PATHS and who.scope != "admin":
            raise Refusal(403, f"{path} wants a token of scope admin, this one is of scope {who.scope}")
        rates = self._searches if scope["method"] == "POST" else self._looks
        if wait_s := rates.wait_s(who.name):
            raise Refusal(429, "this token asks too often; come again later", retry_after_s=wait_s)
        return who

    def _check_host(self, headers: Headers) -> None:
        """Another name than ours came through somebody's DNS: a page that would reach into this machine (DNS rebinding)."""
        given = headers.getlist("host")
        if len(given) != 1 or _name_in(given[0]) not in self._hosts:
            raise Refusal(
                421, "this service is not reached under that name; `lookalike serve --name NAME` adds a name to it"
            )


def _host_names(settings: ServiceSettings) -> frozenset[str]:
    names = {settings.host, *settings.names}
    if is_loopback(settings.host):
        names |= {"127.0.0.1", "localhost", "::1"}
    return frozenset(name.lower() for name in names)


def _name_in(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if not set(host) & set("/@?#\\ ") else ""
    except ValueError:
        return ""


def _check_origin(headers: Headers, *, is_page: bool) -> None:
    """Only our own page asks for anything; other sites may at most link to it."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers["host"].lower():
        raise Refusal(403, "another site's page may not ask this service")
    site = headers.get("sec-fetch-site", "none")
    if site not in {"none", "same-origin"} and not (is_page and headers.get("sec-fetch-mode") == "navigate"):
        raise Refusal(403, "another site's page may not ask this service")


def _secret(headers: Headers) -> str | None:
    kind, _, secret = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return secret.strip()
    try:
        cookie: Any = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return str(cookie.value) if cookie is not None else None
