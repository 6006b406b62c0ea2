import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli import main
from app.service.guard import OPEN_PATHS
from app.service.running import check_settings
from app.service.settings import ServiceSettings
from app.service.tokens import TOKEN_VARIABLE, Rates, Tokens, read_tokens
from store.errors import LookalikeError

READ, ADMIN = "r" * 40, "a" * 40


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(f"# who may ask\n\nread {READ} reader\nadmin {ADMIN} boss\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def locked(gallery: Any, tokens: Path, serving: Any) -> Iterator[Any]:
    """The gallery, served to those who have a token."""
    settings = ServiceSettings(
        store=gallery.store, tokens=str(tokens), names=("faces.example",), audit=os.devnull, allow_url=True
    )
    with serving(settings) as running:
        yield running


def all_routes(app: Any) -> list[tuple[str, str]]:
    """Every method and path that the application has, from the application itself."""
    found = []
    pending = list(app.routes)
    while pending:
        route = pending.pop()
        if not hasattr(route, "path"):
            pending += route.original_router.routes
            continue
        path = re.sub(r"\{[^}]*\}", "1", route.path)
        for method in getattr(route, "methods", None) or {"GET"}:
            found.append((method, f"{path}/index.html" if route.path == "/static" else path))
    return found


def test_without_a_token_every_route_but_the_open_ones_answers_401(locked: Any) -> None:
    routes = all_routes(locked.app._app._app)
    assert len(routes) >= 12
    closed = 0
    for method, path in routes:
        answer = locked.client.request(method, path)
        if path in OPEN_PATHS or path.startswith("/static/"):
            assert answer.status_code in {200, 405}, path
        else:
            closed += 1
            assert answer.status_code == 401, path
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert method == "HEAD" or set(answer.json()) == {"error"}
    assert closed >= 10
    for path in ("/nothing", "/api/", "/api/search/", "/STATIC/x", "//static/x", "/docs", "/redoc", "/openapi.json"):
        assert locked.client.get(path).status_code == 401, path


@pytest.mark.parametrize(
    "given",
    ["", "x", READ[:-1], READ + "r", READ[:-1] + "s", f"{READ} ", "\xe4\xf6", READ.upper(), "Bearer", "0" * 1000],
)
def test_what_is_nearly_a_token_is_none(locked: Any, given: str) -> None:
    header = b"Bearer " + (given.strip() or "none").encode("latin-1")
    answer = locked.client.get("/api/versions", headers={b"Authorization": header})
    assert answer.status_code == (200 if given.strip() == READ else 401)


def test_a_token_opens_what_its_scope_says(locked: Any, gallery: Any) -> None:
    photo = {"photo": gallery.files()[0].read_bytes()}
    for secret, metrics in ((READ, 403), (ADMIN, 200)):
        assert locked.client.get("/api/versions", headers=bearer(secret)).status_code == 200
        assert locked.client.post("/api/search", files=photo, headers=bearer(secret)).status_code == 200
        assert locked.client.get("/metrics", headers=bearer(secret)).status_code == metrics
    asked = locked.client.post("/api/search", json={"url": "https://127.0.0.1/x"}, headers=bearer(READ))
    assert asked.status_code == 403
    asked = locked.client.post("/api/search", json={"url": "https://127.0.0.1/x"}, headers=bearer(ADMIN))
    assert asked.status_code == 422
    assert asked.json()["error"] == "its address is not a public one"


def test_signing_in_gives_a_cookie_that_scripts_and_other_sites_cannot_use(locked: Any) -> None:
    assert locked.client.post("/api/session", headers=bearer("x" * 40)).status_code == 401
    answer = locked.client.post("/api/session", headers=bearer(READ))
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    with httpx.Client(base_url=locked.url, cookies={"lookalike": READ}) as client:
        assert client.get("/api/versions").status_code == 200
        assert client.delete("/api/session").headers["set-cookie"].startswith('lookalike=""')
    locked.client.cookies.clear()


def test_every_known_token_is_compared_whichever_is_given(monkeypatch: pytest.MonkeyPatch, tokens: Path) -> None:
    from app.service import tokens as module

    compared: list[tuple[int, int]] = []
    real = module.hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", lambda a, b: (compared.append((len(a), len(b))), real(a, b))[1])
    known = read_tokens(str(tokens))
    for secret in (READ, ADMIN, "nobody", ""):
        compared.clear()
        known.find(secret)
        assert compared == [(32, 32)] * 2  # digests, so that not even a length shows


def test_a_token_that_asks_too_often_is_told_when_to_come_again(gallery: Any, tokens: Path, serving: Any) -> None:
    settings = ServiceSettings(store=gallery.store, tokens=str(tokens), audit=os.devnull, looks_a_minute=5)
    with serving(settings) as running:
        statuses = [running.client.get("/api/versions", headers=bearer(READ)).status_code for _ in range(7)]
        late = running.client.get("/api/versions", headers=bearer(READ))
        assert statuses[:5] == [200] * 5
        assert statuses[5:] == [429] * 2
        assert 1 <= int(late.headers["Retry-After"]) <= 12
        assert running.client.get("/api/versions", headers=bearer(ADMIN)).status_code == 200  # somebody else
        assert running.client.get("/readyz").status_code == 200


def test_searches_are_counted_apart_from_looks(gallery: Any, tokens: Path, serving: Any) -> None:
    settings = ServiceSettings(store=gallery.store, tokens=str(tokens), audit=os.devnull, searches_a_minute=2)
    with serving(settings) as running:
        ask = lambda secret: running.client.post("/api/search", json={"face_id": "1"}, headers=bearer(secret))  # noqa: E731
        assert [ask(READ).status_code for _ in range(4)] == [422, 422, 429, 429]
        assert ask(ADMIN).status_code == 422
        assert running.client.get("/api/versions", headers=bearer(READ)).status_code == 200


def test_a_bucket_fills_as_time_goes_by() -> None:
    now = 0.0
    rates = Rates(60, now=lambda: now)
    assert [rates.wait_s("a") for _ in range(60)] == [0.0] * 60
    assert rates.wait_s("a") == pytest.approx(1.0)
    now = 2.5
    assert [rates.wait_s("a"), rates.wait_s("a")] == [0.0, 0.0]
    assert rates.wait_s("a") == pytest.approx(0.5)
    now = 1e6
    assert [rates.wait_s("a") for _ in range(61)][-2:] == [0.0, 1.0]


HOSTS = [
    "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:80", "", "127.0.0.1@evil.example",
    "evil.example#127.0.0.1", "faces.example.", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433", "127.1", "faces.example evil",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_another_host_name_is_refused_before_anything_else(locked: Any, host: str) -> None:
    for path in ("/", "/healthz", "/api/versions", "/static/page.css"):
        answer = locked.client.get(path, headers=bearer(READ) | {"Host": host})
        assert answer.status_code == (400 if " " in host and answer.status_code == 400 else 421)


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "localhost", "[::1]:{port}", "FACES.example"])
def test_our_own_names_are_let_in(locked: Any, host: str) -> None:
    headers = bearer(READ) | {"Host": host.format(port=locked.port)}
    assert locked.client.get("/api/versions", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_another_site_s_page_gets_nothing(service: Any, gallery: Any, headers: dict[str, str]) -> None:
    photo = {"photo": gallery.files()[0].read_bytes()}
    for answer in (
        service.client.post("/api/search", files=photo, headers=headers),
        service.client.get("/api/versions", headers=headers),
        service.client.request("OPTIONS", "/api/search", headers=headers | {"Access-Control-Request-Method": "POST"}),
    ):
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


def test_our_own_page_and_a_link_to_it_are_let_in(service: Any) -> None:
    own = {"Origin": service.url, "Sec-Fetch-Site": "same-origin"}
    assert service.client.get("/api/versions", headers=own).status_code == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert service.client.get("/", headers=link).status_code == 200


def test_every_response_says_what_a_browser_must_not_do(service: Any) -> None:
    paths = ("/", "/healthz", "/api/versions", "/nothing", "/api/faces/x", "/openapi.json", "/static/none")
    answers = [service.client.get(path) for path in paths]
    answers += [service.client.get("/", headers={"Host": "evil"}), service.client.put("/api/search")]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "http:" not in policy
        assert "https:" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "server" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "faces.example"])
def test_any_other_address_than_this_machine_s_own_wants_a_token(
    gallery: Any, host: str, tokens: Path, capsys: Any
) -> None:
    assert main(["serve", "--store", gallery.store, "--host", host, "--port", "0"]) == 1
    assert f"{host} may be reached from elsewhere and no token is asked for" in capsys.readouterr().err
    check_settings(ServiceSettings(store=gallery.store, host=host, tokens=str(tokens)))
    for own in ("127.0.0.1", "localhost", "::1"):
        check_settings(ServiceSettings(store=gallery.store, host=own))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no token"),
        ("read short", "a secret has at least 32"),
        ("write " + "w" * 40, "wanted `read SECRET NAME`"),
        ("read", "wanted `read SECRET NAME`"),
        (f"read {READ} a b", "wanted `read SECRET NAME`"),
        (f"read {READ} <b>", "a name has at most 40"),
        (f"read {'ä' * 40}", "a secret has at least 32 letters"),
    ],
)
def test_a_file_of_tokens_that_is_none_is_refused_without_its_secrets(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(LookalikeError, match=re.escape(sentence)) as refused:
        read_tokens(str(path))
    assert not any(word in str(refused.value) for word in text.split() if len(word) > 30)


def test_tokens_that_others_may_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"read {READ}")
    path.chmod(0o640)
    with pytest.raises(LookalikeError, match="others may read the tokens"):
        read_tokens(str(path))
    with pytest.raises(LookalikeError, match="cannot be read"):
        read_tokens(str(tmp_path / "none"))


def test_one_token_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_tokens(None) == Tokens(())
    monkeypatch.setenv(TOKEN_VARIABLE, ADMIN)
    found = read_tokens(None).find(ADMIN)
    assert found is not None
    assert found.scope == "admin"
    assert ADMIN not in repr(found)


def test_an_address_in_use_is_refused_in_a_sentence(gallery: Any, service: Any, capsys: Any) -> None:
    assert main(["serve", "--store", gallery.store, "--port", str(service.port)]) == 1
    assert f"cannot listen at 127.0.0.1, port {service.port}" in capsys.readouterr().err
