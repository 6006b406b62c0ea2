import contextlib
import io
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

from app.service.application import create_app
from app.service.running import listen, uvicorn_config
from app.service.settings import ServiceSettings
from tasks.steps.check_version import check_version
from tasks.steps.contract import Contract
from tasks.steps.embed_faces import embed_faces
from tasks.steps.find_faces import FoundFaces, find_faces
from tasks.steps.list_photos import list_photos
from tasks.steps.plan_build import plan_build
from tasks.steps.publish_version import publish_version
from tasks.steps.resolve_encoder import EncoderRef, resolve_encoder
from tasks.steps.train_encoder import NetworkSettings, new_encoder
from tasks.steps.write_index import write_index

CHROMIUM = "/usr/bin/chromium"


@dataclass(frozen=True)
class Gallery:
    """A store and the photos it was built from."""

    store: str
    photos: Path
    encoder: EncoderRef

    def build(self, *, labels: Literal["folder"] | None = "folder", shard_photos: int = 12) -> int | None:
        """Publish what the photos are now, without Prefect."""
        plan = plan_build(
            list_photos(str(self.photos), store=self.store),
            store=self.store,
            contract=Contract(),
            encoder=self.encoder.id,
            labels=labels,
            shard_photos=shard_photos,
        )
        found = [find_faces(ref, store=self.store, contract=Contract()) for ref in plan.requests + plan.finished]
        found += [FoundFaces(shard=ref, computed=False) for ref in plan.kept]
        for shard in found:
            embed_faces(shard, store=self.store, contract=Contract().id, encoder=self.encoder)
        draft = write_index(plan, store=self.store, contract=Contract(), encoder=self.encoder)
        return publish_version(check_version(draft, store=self.store).draft, store=self.store, plan=plan)

    def files(self) -> list[Path]:
        return sorted(self.photos.rglob("*.jpg"))


@dataclass(frozen=True)
class Running:
    """A service that answers on loopback."""

    url: str
    client: httpx.Client
    app: Any

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def search(self, photo: bytes | Path, **fields: Any) -> httpx.Response:
        data = photo if isinstance(photo, bytes) else photo.read_bytes()
        return self.client.post("/api/search", files={"photo": ("any.jpg", data)}, data=fields)

    def raw(self, target: bytes) -> bytes:
        """What comes back for a target that no client has tidied up."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as sock:
            sock.sendall(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % target)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def search_face(self, **question: Any) -> httpx.Response:
        return self.client.post("/api/search", json=question)


@contextlib.contextmanager
def served(settings: ServiceSettings, *, until: str = "/readyz") -> Iterator[Running]:
    """The service on a free port, by uvicorn in a thread, once it answers there."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    app = create_app(settings)
    server = uvicorn.Server(uvicorn_config(app, settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=120) as client:
            deadline = time.monotonic() + 120
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if client.get(until).status_code == 200:
                        break
                assert thread.is_alive()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield Running(url, client, app)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="session")
def serving() -> Callable[..., Any]:
    """Serves with other settings, in a `with`."""
    return served


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory, drawn_people: Path) -> Gallery:
    """Version 1 of the drawn people by a small untrained encoder; not to be changed."""
    folder = tmp_path_factory.mktemp("gallery")
    photos = shutil.copytree(drawn_people, folder / "photos")
    store = str(folder / "store")
    encoder = resolve_encoder(new_encoder(store, settings=NetworkSettings(width=0.25, dimension=32)), store=store)
    made = Gallery(store=store, photos=photos, encoder=encoder)
    made.build()
    return made


@pytest.fixture(scope="session")
def make_gallery(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[Path]], Gallery]:
    """Builds a store of one's own, from copies of some photos."""

    def make(files: list[Path]) -> Gallery:
        folder = tmp_path_factory.mktemp("own")
        for file in files:
            (folder / "photos" / file.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / "photos" / file.parent.name)
        shutil.copytree(Path(gallery.store) / "encoders", folder / "store" / "encoders")
        made = Gallery(store=str(folder / "store"), photos=folder / "photos", encoder=gallery.encoder)
        made.build()
        return made

    return make


@pytest.fixture(scope="module")
def chromium() -> Iterator[Callable[..., Any]]:
    """Starts Debian's Chromium, driven by Playwright."""
    if not Path(CHROMIUM).exists():
        pytest.skip("Debian's chromium is not installed")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        yield lambda *more: driver.chromium.launch(executable_path=CHROMIUM, args=[*arguments, *more])


@pytest.fixture(scope="module")
def browser(chromium: Callable[..., Any]) -> Iterator[Any]:
    """One that tests share."""
    with contextlib.closing(chromium()) as started:
        yield started


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens tabs; whatever the browser complains of in one (errors, blocked scripts, dialogs) fails the test."""
    complaints: list[str] = []
    contexts: list[Any] = []

    def open_one(
        url: str, *, width: int = 1200, allowed: str = "no complaint", of: Any = browser, **settings: Any
    ) -> Any:
        context = of.new_context(viewport={"width": width, "height": 800}, **settings)
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on(
            "console",
            lambda said: complaints.append(said.text) if said.type == "error" and allowed not in said.text else None,
        )
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def own_gallery(gallery: Gallery, make_gallery: Callable[[list[Path]], Gallery]) -> Gallery:
    """A store of the test's own, of nine photos."""
    return make_gallery(gallery.files()[:9])


@pytest.fixture(scope="module")
def service(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The gallery, served without tokens."""
    audit = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    with served(ServiceSettings(store=gallery.store, audit=str(audit))) as running:
        yield running


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    """The bytes of a plain picture."""

    def make(size: tuple[int, int] = (320, 240), colour: Any = (90, 120, 150), kind: str = "JPEG") -> bytes:
        sink = io.BytesIO()
        Image.new("RGB", size, colour).save(sink, kind)
        return sink.getvalue()

    return make
