"""What S3 does wrong, through the fault proxy: each fault heals within the requests that are allowed, or ends in one sentence."""

import os
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.fault_proxy import FAULTS, FaultKind, FaultProxy, Rule
from benchmarks.faults.s3_endpoint import S3Endpoint
from store import s3_files, s3_objects, s3_requests
from store.errors import ArtifactError, LookalikeError, RefusedError, StoreError, UnavailableError
from store.fingerprints import sha256_hex
from store.s3_requests import TRIES
from store.sources import check_source, list_source, read_uri
from store.storage import Storage
from tasks.policies import can_heal
from tests.conftest import reached_through

DATA = b"what was stored " * 64
WHATEVER = "."


@pytest.fixture(scope="module")
def endpoint() -> Iterator[S3Endpoint]:
    with S3Endpoint() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def module_proxy(endpoint: S3Endpoint) -> Iterator[FaultProxy]:
    with FaultProxy(endpoint.url) as proxy, reached_through(proxy.url):
        yield proxy


@pytest.fixture
def proxy(module_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    monkeypatch.setattr(s3_requests, "_FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(s3_files, "_tested", set())
    module_proxy.follow([])
    return module_proxy


@pytest.fixture
def storage(proxy: FaultProxy, s3_prefix: str) -> Storage:
    storage = Storage(s3_prefix)
    storage.write("there", DATA)
    storage.write("folder/a", b"a")
    proxy.follow([])
    return storage


@pytest.fixture
def s3_prefix(request: pytest.FixtureRequest) -> str:
    return f"s3://faces/{sha256_hex(request.node.nodeid.encode())[:12]}"


def large(storage: Storage, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file of five parts under the path."""
    monkeypatch.setattr(s3_objects, "PART_BYTES", 1024)
    monkeypatch.setattr(s3_files, "_ONE_PUT", 2048)
    data = os.urandom(4 * 1024 + 100)
    (tmp_path / "large").write_bytes(data)
    storage.upload(path, tmp_path / "large")
    return data


VERBS: dict[str, tuple[str, Callable[[Storage], Any], Any]] = {
    "read": ("GET /faces/.*/there", lambda s: s.read("there"), DATA),
    "read_range": ("GET /faces/.*/there", lambda s: s.read_range("there", 5, 9), DATA[5:9]),
    "size": ("HEAD", lambda s: s.size("there"), len(DATA)),
    "exists": ("HEAD", lambda s: s.exists("there"), True),
    "names": ("list-type=2", lambda s: s.names(""), ["folder", "there"]),
    "write": ("PUT", lambda s: [s.write("new", b"new"), s.read("new")][1], b"new"),
    "create": ("PUT", lambda s: (s.create("new", b"new"), s.read("new")), (True, b"new")),
    "create_there": ("PUT", lambda s: (s.create("there", b"new"), s.read("there")), (False, DATA)),
    "swap": ("PUT", lambda s: (s.swap("there", b"new", expected=DATA), s.read("there")), (True, b"new")),
    "copy": ("PUT", lambda s: [s.copy("there", "second"), s.read("second")][1], DATA),
    "remove": ("DELETE", lambda s: [s.remove("folder"), s.names("")][1], ["there"]),
}
HEALING: list[FaultKind] = [kind for kind in FAULTS if kind != "stale_listing"]


@pytest.mark.parametrize(
    ("verb", "fault"),
    [(v, f) for v in VERBS for f in HEALING if (v, f) != ("read_range", "flipped")],  # S3 sends no hash of a range
)
def test_one_fault_heals_and_the_outcome_is_as_without_it(
    storage: Storage, proxy: FaultProxy, verb: str, fault: FaultKind
) -> None:
    pattern, do, wanted = VERBS[verb]
    proxy.follow([Rule(fault, pattern=pattern, after_bytes=3, delay_s=0.01)])
    assert do(storage) == wanted
    assert [one.rule.fault for one in proxy.injected][-1] == fault
    assert proxy.requests <= 8


@pytest.mark.parametrize("fault", ["slow_down_503", "error_500", "truncated", "error_under_200", "short", "flipped"])
def test_a_read_that_never_comes_right_ends_after_a_bounded_number_of_requests(
    storage: Storage, proxy: FaultProxy, fault: FaultKind
) -> None:
    proxy.follow([Rule(fault, after_bytes=n) for n in range(1, 50)])
    with pytest.raises(UnavailableError, match=rf"^{storage.uri}/there: .*try again later$") as caught:
        storage.read("there")
    assert proxy.requests <= TRIES
    assert can_heal(caught.value)


@pytest.mark.parametrize("verb", ["names", "write", "create", "swap", "remove", "size", "copy"])
def test_every_verb_gives_up_in_one_sentence_that_names_the_uri(storage: Storage, proxy: FaultProxy, verb: str) -> None:
    proxy.follow([Rule("error_500")] * 60)
    with pytest.raises(UnavailableError, match=rf"^{storage.uri}.*: no whole answer from S3 in 5 tries \(the last: "):
        VERBS[verb][1](storage)
    assert proxy.requests <= 2 * TRIES


def test_an_endpoint_that_is_not_there_is_unavailable(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match=r"the last: EndpointConnectionError"):
        storage.read("there")


@pytest.mark.parametrize("fault", ["error_under_200", "flipped", "short"])
def test_without_its_checks_a_read_takes_what_is_not_stored(
    storage: Storage, proxy: FaultProxy, fault: FaultKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the above: the answer alone does not show it."""
    monkeypatch.setattr(s3_objects, "_vouches", lambda etag, blocks: True)
    monkeypatch.setattr(s3_requests, "_ALWAYS_SENT", {})
    monkeypatch.setattr(s3_objects, "ask", _with_some_etag(s3_objects.ask))
    proxy.follow([Rule(fault, pattern="GET", after_bytes=3)])
    assert storage.read("there") != DATA


def _with_some_etag(ask: Callable[..., Any]) -> Callable[..., Any]:
    def asked(*args: Any, **kwargs: Any) -> Any:
        answer = ask(*args, **kwargs)
        answer.fields.setdefault("ETag", '""')
        return answer

    return asked


def test_without_its_checks_a_write_that_was_never_done_is_believed(
    storage: Storage, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_requests, "_ALWAYS_SENT", {})
    proxy.follow([Rule("page_under_200", pattern="PUT")])
    storage.write("new", b"new")
    assert not storage.exists("new")


def test_a_lost_answer_to_a_create_or_swap_counts_for_the_caller_whose_bytes_stand_there(
    storage: Storage, proxy: FaultProxy
) -> None:
    proxy.follow([Rule("lost_reply", pattern="PUT")])
    assert storage.create("claim", b"mine")
    assert not storage.create("claim", b"theirs")
    proxy.follow([Rule("lost_reply", pattern="PUT")] * 12)
    assert storage.swap("claim", b"second", expected=b"mine")
    assert storage.read("claim") == b"second"
    proxy.follow([Rule("lost_reply", pattern="PUT")])
    assert not storage.swap("claim", b"third", expected=b"mine")


def test_a_create_that_may_be_done_and_is_not_is_unavailable_and_not_false(storage: Storage, proxy: FaultProxy) -> None:
    proxy.follow([Rule("error_500", pattern="PUT")] * 5)
    with pytest.raises(UnavailableError):
        storage.create("claim", b"mine")
    assert storage.create("claim", b"mine")
    proxy.follow([Rule("error_500", pattern="PUT")] * 5)
    assert not storage.create("claim", b"theirs"), "somebody else's stands there, which is an answer"


def test_a_stale_listing_hides_what_is_there_and_nothing_that_reads_by_name(
    storage: Storage, proxy: FaultProxy
) -> None:
    assert storage.names("folder") == ["a"]
    storage.write("folder/b", b"b")
    proxy.follow([Rule("stale_listing", pattern="list-type=2")])
    assert storage.names("folder") == ["a"]
    assert storage.exists("folder/b")
    assert storage.read("folder/b") == b"b"
    assert storage.names("folder") == ["a", "b"]


@pytest.mark.parametrize("fault", ["truncated", "flipped", "short", "lost_reply", "error_under_200", "slow_down_503"])
def test_a_large_file_goes_up_and_comes_down_in_parts_whatever_happens_to_one(
    storage: Storage, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: FaultKind
) -> None:
    proxy.follow([Rule(fault, pattern="partNumber=3"), Rule("lost_reply", pattern="POST .*uploadId=")])
    data = large(storage, "large", tmp_path, monkeypatch)
    proxy.follow([Rule(fault, pattern="GET /faces/.*/large", after_bytes=17)])
    storage.download("large", tmp_path / "down", sha256=sha256_hex(data))
    assert (tmp_path / "down").read_bytes() == data
    proxy.follow([Rule(fault, pattern="GET /faces/.*/large", after_bytes=17)])
    storage.download("large", tmp_path / "down again")
    assert (tmp_path / "down again").read_bytes() == data
    assert storage.read("large") == data
    assert b"".join(storage.chunks("large", chunk_bytes=1000)) == data
    assert sorted(p.name for p in tmp_path.iterdir()) == ["down", "down again", "large"]


def test_an_object_replaced_while_it_comes_down_is_fetched_whole_again(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large(storage, "large", tmp_path, monkeypatch)
    asked = s3_objects.ask
    new = os.urandom(4000)

    def replacing(method: str, where: str, **parameters: Any) -> Any:
        if parameters.get("Range", "").startswith("bytes=2048"):
            monkeypatch.setattr(s3_objects, "ask", asked)
            storage.write("large", new)
        return asked(method, where, **parameters)

    monkeypatch.setattr(s3_objects, "ask", replacing)
    storage.download("large", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == new


def test_a_download_of_another_hash_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"/there has changed: its sha256 is \w{12}…, recorded was 000000000000…"):
        storage.download("there", tmp_path / "down", sha256="0" * 64)
    with pytest.raises(ArtifactError, match=r"/nowhere is missing from the store"):
        storage.download("nowhere", tmp_path / "down")
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_fails_is_taken_back_and_leftovers_go_by_age(
    storage: Storage, endpoint: S3Endpoint, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = storage.uri.removeprefix("s3://faces/")
    proxy.follow([Rule("error_500", pattern="partNumber=3")] * TRIES)
    with pytest.raises(UnavailableError):
        large(storage, "large", tmp_path, monkeypatch)
    assert not storage.exists("large")
    assert endpoint.objects.uploads("faces", prefix=prefix) == []
    for path in ("runs/a", "runs/b", "elsewhere/c"):  # as a process leaves them that is killed
        endpoint.objects.start_upload("faces", f"{prefix}/{path}")
    assert storage.abort_leftover_uploads("runs", older_than=timedelta(hours=1)) == 0
    assert storage.abort_leftover_uploads("runs", older_than=timedelta(0)) == 2
    assert [u.key for _, u in endpoint.objects.uploads("faces", prefix=prefix)] == [f"{prefix}/elsewhere/c"]


def test_old_versions_of_what_was_removed_and_replaced_go_for_good() -> None:
    with S3Endpoint() as endpoint, reached_through(endpoint.url):
        endpoint.objects.bucket("faces").versioned = True
        storage = Storage("s3://faces/store")
        for data in (b"one", b"two", b"three"):
            storage.write("kept", data)
            storage.write("sub/removed", data)
        storage.remove("sub")
        Storage("s3://faces/store2").write("kept", b"a neighbour's")
        assert len(endpoint.objects.versions("faces", prefix="store/")) == 8
        assert storage.remove_old_versions("sub") == 5  # three, and the marks of two deletions
        assert storage.remove_old_versions() == 2
        assert [(r.name, r.stored.data) for r in endpoint.objects.versions("faces", prefix="") if r.stored] == [
            ("store/kept", b"three"),
            ("store2/kept", b"a neighbour's"),
        ]


def test_of_a_folder_the_manifest_goes_first(storage: Storage, proxy: FaultProxy, endpoint: S3Endpoint) -> None:
    for name in ("a", "manifest.json", "sub/z"):
        storage.write(f"versions/000001/{name}", b"")
    before = len(endpoint.answered)
    storage.remove("versions/000001")
    deleted = [one.target.rpartition("/")[2] for one in endpoint.answered[before:] if one.method == "DELETE"]
    assert deleted[0] == "manifest.json"
    assert set(deleted) == {"manifest.json", "a", "z", "000001"}


def test_the_endpoint_is_tested_once_a_process_and_store(storage: Storage, proxy: FaultProxy) -> None:
    storage.check_writable()
    assert 5 <= proxy.requests <= 12
    proxy.follow([])
    Storage(storage.uri).check_writable()
    assert proxy.requests == 0
    assert storage.names("runs") == []


def test_an_endpoint_that_ignores_conditions_is_refused_to_several_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_files, "_tested", set())
    with S3Endpoint(ignores_conditions=True) as endpoint, reached_through(endpoint.url):
        storage = Storage("s3://faces/store")
        assert storage.create("x", b"first") and storage.create("x", b"second"), "the twin: without the test, both win"  # noqa: PT018
        with pytest.raises(
            StoreError,
            match=r"overwrites an object where only a new one may be made \(If-None-Match\).*LOOKALIKE_SINGLE_WRITER=1",
        ):
            storage.check_writable()
        monkeypatch.setenv("LOOKALIKE_SINGLE_WRITER", "1")
        storage.check_writable()
        assert not storage.create("x", b"third")
        assert not storage.swap("x", b"third", expected=b"first")
        assert storage.swap("x", b"third", expected=b"second")
        assert storage.read("x") == b"third"


def test_refusals_are_one_sentence_without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with S3Endpoint(access_key="good") as endpoint, reached_through(endpoint.url):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong-key-canary")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-canary")
        storage = Storage("s3://faces/refused")  # not one that this process has tested already
        for call in (storage.names, storage.check_writable, lambda: storage.read("x")):
            with pytest.raises(
                RefusedError, match=r"S3 does not (take|allow) .*: (check|the credentials must)"
            ) as caught:
                call()
            assert "canary" not in str(caught.value)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        with pytest.raises(RefusedError, match=r"no credentials for S3 were found: set AWS_ACCESS_KEY_ID"):
            storage.read("x")
        monkeypatch.setenv("AWS_PROFILE", "nobodys")
        with pytest.raises(RefusedError, match=r"no credentials for S3 were found: set .* or AWS_PROFILE"):
            storage.read("x")


def test_a_profile_gives_the_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with S3Endpoint(access_key="from-profile") as endpoint, reached_through(endpoint.url):
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        (tmp_path / "credentials").write_text(
            "[photos]\naws_access_key_id = from-profile\naws_secret_access_key = secret\n"
        )
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_PROFILE", "photos")
        Storage("s3://faces/store").write("x", b"1")
        assert Storage("s3://faces/store").read("x") == b"1"


@pytest.mark.parametrize("fault", HEALING)
def test_photos_are_listed_and_read_whatever_happens_to_one_request(
    storage: Storage, proxy: FaultProxy, fault: FaultKind
) -> None:
    for number in range(3):
        storage.write(f"in/{number}.jpg", b"photo %d" % number * 20)
    proxy.follow(
        [Rule(fault, pattern="list-type=2", after_bytes=5), Rule(fault, pattern="GET .*/1.jpg", after_bytes=5)]
    )
    photos = list_source(f"{storage.uri}/in", suffixes=frozenset({".jpg"})).photos
    assert [p.size for p in photos] == [140] * 3
    assert [read_uri(p.uri, max_bytes=140) for p in photos] == [b"photo %d" % n * 20 for n in range(3)]
    assert read_uri(photos[0].uri, max_bytes=10) == b"photo 0photo 0"[:11]


def test_a_photo_that_cannot_be_read_says_why(storage: Storage, proxy: FaultProxy) -> None:
    proxy.follow([Rule("error_500")] * 20)
    with pytest.raises(UnavailableError, match=rf"^{re.escape(storage.uri)}/there: no whole answer from S3"):
        read_uri(f"{storage.uri}/there", max_bytes=10)


def test_a_photo_that_does_not_come_is_a_failed_row_that_says_why_and_the_others_are_searched(
    storage: Storage, proxy: FaultProxy, tmp_path: Path
) -> None:
    from store.shards import read_photos
    from tasks.steps.contract import Contract
    from tasks.steps.draw_people import draw_people
    from tasks.steps.find_faces import find_faces, shard_of
    from tasks.steps.list_photos import list_photos

    for number, picture in enumerate(draw_people(tmp_path, people=range(2), views=range(1), seed=3, workers=1)):
        storage.upload(f"in/{number}.jpg", picture)
    store, contract = f"{storage.uri}/store", Contract()
    listed = list_photos(f"{storage.uri}/in", store=store)
    proxy.follow(
        [Rule("truncated", pattern="GET .*/in/0.jpg", after_bytes=900)] * TRIES + [Rule("reset", pattern="/in/1")]
    )
    found = find_faces(listed.listing, store=store, contract=contract)
    photos = read_photos(Storage(store), contract=contract.id, shard=shard_of(found.shard)).to_pylist()
    assert [photo["status"] for photo in photos] == ["failed", "indexed"]
    assert re.search(r"^cannot be read: s3://.*/in/0.jpg: no whole answer from S3 in 5 tries", photos[0]["reason"])


@pytest.mark.parametrize("uri", ["s3://key:canary@faces/x", "s3://canary@faces", "s3://canary:@faces/x"])
def test_a_name_or_password_in_an_address_is_refused_and_not_repeated(uri: str) -> None:
    for call in (
        lambda: Storage(uri),
        lambda: list_source(uri, suffixes=frozenset({".jpg"})),
        lambda: check_source(uri, suffixes=frozenset({".jpg"})),
        lambda: read_uri(uri, max_bytes=1),
    ):
        with pytest.raises(LookalikeError, match="an s3:// address has a name or password in it") as refused:
            call()
        assert "canary" not in str(refused.value)
