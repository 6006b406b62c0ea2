import numpy as np
import pyarrow as pa
import pytest

from store.content_hash import table_content_sha256
from store.fingerprints import content_sha256

NAUGHTY = [
    '/a "b".jpg',
    "/back\\slash",
    "/tab\t",
    "/new\nline",
    "/ünï/图.png",
    "/\x7f",
    "/\x00",
    "/😀",
    "/plain ~!#[]{}",
    "",
]


@pytest.mark.parametrize("uris", [[f"/photos/{n:05}.jpg" for n in range(700)], NAUGHTY, sorted(NAUGHTY * 3)])
def test_columns_hash_to_what_rows_hash_to(uris: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.content_hash._ROWS", 100)
    rng = np.random.default_rng(0)
    hashes = [None if rng.random() < 0.2 else rng.bytes(32).hex() for _ in uris]
    statuses = [("indexed", "no_face", "unreadable")[int(rng.integers(3))] for _ in uris]
    table = pa.table({"uri": uris, "photo_sha256": pa.array(hashes, pa.string()), "status": statuses})
    ids = np.sort(rng.integers(0, 2**63 - 1, 250))
    wanted = content_sha256(zip(uris, hashes, statuses, strict=True), ids.tolist())
    assert table_content_sha256(table, ids) == wanted
    assert table_content_sha256(pa.concat_tables([table.slice(0, 3), table.slice(3)]), ids) == wanted
    if len(uris) > 1:
        assert table_content_sha256(table.slice(1), ids) != wanted


def test_nothing_hashes_to_what_nothing_hashes_to() -> None:
    empty = pa.table({name: pa.array([], pa.string()) for name in ("uri", "photo_sha256", "status")})
    assert table_content_sha256(empty, np.zeros(0, np.int64)) == content_sha256([], [])
