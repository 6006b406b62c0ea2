import hashlib
import json
import struct

import pytest

from store.fingerprints import (
    canonical_json,
    content_sha256,
    face_id,
    face_ids,
    fingerprint,
    sha256_hex,
    shard_name,
    short_hash,
)

PHOTO = hashlib.sha256(b"a photo").hexdigest()


def test_sha256_hex_is_the_hash_of_the_bytes() -> None:
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_canonical_json_sorts_keys_and_escapes_everything_but_ascii() -> None:
    assert canonical_json({"b": [1, None], "a": "é"}) == b'{"a":"\\u00e9","b":[1,null]}'


def test_canonical_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json([float("nan")])


def test_short_hash_is_the_first_half_of_the_hash_of_the_canonical_json() -> None:
    assert short_hash({"b": 1, "a": 2}) == hashlib.sha256(b'{"a":2,"b":1}').hexdigest()[:32]


@pytest.mark.parametrize(("etag", "mtime_ns", "stamp"), [("e", 5, '"e"'), (None, 5, "5"), (None, None, "null")])
def test_a_fingerprint_is_the_hash_of_uri_size_and_etag_or_else_time(
    etag: str | None, mtime_ns: int | None, stamp: str
) -> None:
    expected = hashlib.sha256(f'["/p/a.jpg",17,{stamp}]'.encode()).hexdigest()
    assert fingerprint("/p/a.jpg", size=17, etag=etag, mtime_ns=mtime_ns) == expected


def test_a_shard_name_is_the_hash_of_contract_attempt_and_sorted_fingerprints() -> None:
    expected = hashlib.sha256(json.dumps(["c", 3, ["x", "y"]], separators=(",", ":")).encode()).hexdigest()[:32]
    assert shard_name(contract="c", attempt=3, fingerprints=["y", "x"]) == expected


@pytest.mark.parametrize("other", [{"contract": "d"}, {"attempt": 1}, {"fingerprints": ["x"]}])
def test_a_shard_name_depends_on_each_of_its_parts(other: dict[str, object]) -> None:
    parts: dict[str, object] = {"contract": "c", "attempt": 0, "fingerprints": ["x", "y"]}
    assert shard_name(**parts) != shard_name(**(parts | other))  # type: ignore[arg-type]


def test_a_face_id_is_63_bits_of_the_hash_of_the_photo_and_the_rounded_box() -> None:
    digest = hashlib.sha256(bytes.fromhex(PHOTO) + struct.pack("<iiii", -3, 12, 101, 200)).digest()
    bits = "".join(f"{byte:08b}" for byte in digest)
    assert face_id(PHOTO, [-2.6, 12.4, 100.6, 200.0]) == int(bits[:63], 2)


def test_a_face_id_fits_a_signed_64_bit_integer() -> None:
    assert all(0 <= face_id(PHOTO, [n, 0, n + 10, 10]) < 2**63 for n in range(200))


def test_a_second_equal_id_in_one_photo_adds_one() -> None:
    first = face_id(PHOTO, [1, 2, 3, 4])
    assert face_ids(PHOTO, [[1.1, 2, 3, 4], [0.9, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 4]]) == [
        first,
        first + 1,
        face_id(PHOTO, [5, 6, 7, 8]),
        first + 2,
    ]


def test_content_sha256_is_the_hash_of_the_rows_and_then_the_ids() -> None:
    text = b'["/a.jpg","00","indexed"]\n["/b.jpg",null,"failed"]\n3\n17\n'
    rows = [("/a.jpg", "00", "indexed"), ("/b.jpg", None, "failed")]
    assert content_sha256(rows, [3, 17]) == hashlib.sha256(text).hexdigest()
