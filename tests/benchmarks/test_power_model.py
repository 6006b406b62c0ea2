from pathlib import Path

import pytest

from benchmarks.faults.power_model import Call, crashed_tree, read_calls, write_tree

MADE = [
    Call("mkdir", "runs"),
    Call("make", "runs/a"),
    Call("write", "runs/a", data=b"1234"),
    Call("flush", "runs/a"),
    Call("link", "runs/a", "b"),
    Call("unlink", "runs/a"),
    Call("flush", ""),
]


def left(before: Path, calls: list[Call], data: str = "dropped", names: str = "none") -> dict[str, bytes | None]:
    return crashed_tree(before, calls, data=data, names=names)


def test_a_name_is_safe_once_its_folder_was_flushed(tmp_path: Path) -> None:
    assert left(tmp_path, MADE[:-1]) == {}
    assert left(tmp_path, MADE) == {"runs": None, "b": b"1234"}


def test_bytes_are_safe_once_the_file_was_flushed(tmp_path: Path) -> None:
    unflushed = MADE[:3]
    states = ("dropped", "zeroed", "halved", "reordered", "kept")
    assert [left(tmp_path, unflushed, data, "all")["runs/a"] for data in states] == [
        b"", bytes(4), b"12", b"\0\x0034", b"1234",
    ]  # fmt: skip
    assert left(tmp_path, MADE[:4], "dropped", "all")["runs/a"] == b"1234"


def test_a_replaced_file_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"old")
    calls = [Call("make", "a"), Call("write", "a", data=b"new"), Call("flush", "a"), Call("rename", "a", "b")]
    assert left(tmp_path, calls) == {"b": b"old"}
    assert left(tmp_path, calls, names="all") == {"b": b"new"}
    assert left(tmp_path, [*calls, Call("flush", "")]) == {"b": b"new"}


def test_what_is_in_a_folder_that_has_no_safe_name_is_lost(tmp_path: Path) -> None:
    calls = [Call("mkdir", "x"), Call("make", "x/a"), Call("flush", "x/a"), Call("flush", "x")]
    assert left(tmp_path, calls) == {}
    assert left(tmp_path, [*calls, Call("flush", "")]) == {"x": None, "x/a": b""}


def test_a_tree_is_laid_out_as_it_was_left(tmp_path: Path) -> None:
    write_tree({"x": None, "x/a": b"1"}, tmp_path / "out")
    assert (tmp_path / "out/x/a").read_bytes() == b"1"


def test_calls_are_read_from_a_log_and_unknown_ones_refused(tmp_path: Path) -> None:
    store = Path("/s")
    hexed = "".join(f"\\x{byte:02x}" for byte in b"/s/a")
    log = tmp_path / "log"
    log.write_text(
        f'7 openat(AT_FDCWD</x>, "{hexed}", O_WRONLY|O_CREAT|O_EXCL, 0666) = 3<{hexed}>\n'
        f'7 write(3<{hexed}>, "\\x31\\x32", 2) = 2\n'
        f"7 fsync(3<{hexed}>)          = 0\n"
        f'7 unlink("{hexed}") = 0\n'
        f'7 unlink("{hexed}") = -1 ENOENT (No such file or directory)\n'
        '7 unlink("\\x2f\\x74") = 0\n'
    )
    verbs = [(call.verb, call.path, call.data) for call in read_calls(log, store)]
    assert verbs == [("make", "a", b""), ("write", "a", b"12"), ("flush", "a", b""), ("unlink", "a", b"")]
    log.write_text(f"7 ftruncate(3<{hexed}>, 0) = 0\n")
    with pytest.raises(ValueError, match="the model does not know ftruncate, which touched a"):
        read_calls(log, store)
