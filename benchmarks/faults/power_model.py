"""A disk that keeps only what was flushed: a build's own log of calls, replayed to any moment at which the power may go.

A file's bytes are safe once the file was flushed; a name in a folder once the folder was flushed. Of what was not, anything
may be there: a name or not, in any combination; bytes lost, zeroed, half there or in another order. A rename is one step.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

__all__ = ["CALLS", "DATA", "NAMES", "Call", "crashed_tree", "read_calls", "write_tree"]

CALLS = (
    "openat", "write", "pwrite64", "sendfile", "copy_file_range", "fsync", "fdatasync", "ftruncate", "link", "linkat",
    "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "lseek",
)  # fmt: skip
DATA = ("dropped", "zeroed", "halved", "reordered", "kept")
"""What becomes of bytes that were not flushed."""

NAMES = ("none", "all", "some1", "some2", "some3")
"""Which names that were not flushed are there: none, all, or some, drawn by the last digit."""

Verb = Literal["make", "truncate", "write", "flush", "link", "rename", "unlink", "mkdir", "rmdir"]
_VERBS = get_args(Verb)
_LINE = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FOLDER_AND_NAME = re.compile(r'(AT_FDCWD(?:<[^>]*>)?|\d+<([^>]*)>), "((?:\\x[0-9a-f]{2})*)"')
_FILE = re.compile(r"^\d+<([^>]*)>")


@dataclass(frozen=True)
class Call:
    """One call that succeeded: paths relative to the store, and the bytes of a write."""

    verb: Verb
    path: str
    target: str = ""
    data: bytes = b""


@dataclass
class _Node:
    """A file or a folder, apart from its names: what is there, and what is safe."""

    folder: bool
    data: bytes = b""
    safe: bytes = b""
    unsafe: list[bytes] = field(default_factory=list)
    names: dict[str, "_Node"] = field(default_factory=dict)
    safe_names: dict[str, "_Node"] = field(default_factory=dict)


@dataclass(frozen=True)
class _Change:
    """Names to add and to take away in one step: (folder, name, node), None for a name that goes."""

    steps: tuple[tuple[_Node, str, _Node | None], ...]


def read_calls(log: Path, store: Path) -> list[Call]:
    """The calls under a store in a log of `strace -f -y -xx`, in their order.

    Raises:
        ValueError: a call that this model does not know touched the store.
    """
    calls: list[Call] = []
    for line in log.read_text(errors="replace").splitlines():
        if (match := _LINE.match(line)) and int(match[3]) >= 0:
            calls += _calls_of(match[1], match[2], int(match[3]), store)
    return calls


def _calls_of(name: str, asked: str, result: int, store: Path) -> Iterator[Call]:
    paths = [_under(store, folder, text) for _, folder, text in _FOLDER_AND_NAME.findall(asked)]
    if name in {"link", "rename", "unlink", "mkdir", "rmdir"}:
        paths = [_under(store, "", text) for text in _STRING.findall(asked)]
    opened = _FILE.match(asked)
    at = _under(store, opened[1], "") if opened else None
    match name:
        case "openat" if "O_CREAT" in asked and paths[0] is not None:
            yield Call("truncate" if "O_TRUNC" in asked else "make", paths[0])
        case "write" if at is not None:
            data = _bytes(_STRING.findall(asked)[0])
            if len(data) != result:
                raise ValueError(f"a write of {len(data)} bytes wrote {result}")
            yield Call("write", at, data=data)
        case "fsync" | "fdatasync" if at is not None:
            yield Call("flush", at)
        case "link" | "linkat" if paths[1] is not None:
            yield Call("link", paths[0] or "", paths[1])
        case "rename" | "renameat" | "renameat2" if paths[1] is not None:
            yield Call("rename", paths[0] or "", paths[1])
        case "unlink" | "unlinkat" if paths[0] is not None:
            yield Call("rmdir" if "AT_REMOVEDIR" in asked else "unlink", paths[0])
        case "mkdir" | "mkdirat" if paths[0] is not None:
            yield Call("mkdir", paths[0])
        case "rmdir" if paths[0] is not None:
            yield Call("rmdir", paths[0])
        case "pwrite64" | "sendfile" | "copy_file_range" | "ftruncate" if at is not None:
            raise ValueError(f"the model does not know {name}, which touched {at}")


def crashed_tree(before: Path, calls: list[Call], *, data: str, names: str) -> dict[str, bytes | None]:
    """What is on the disk when the power goes after these calls: bytes by path, None for a folder.

    Args:
        before: the store as it was, all of it safe.
        calls: those that were made.
        data: one of DATA.
        names: one of NAMES.
    """
    root = _load(before)
    pending: list[_Change] = []
    for call in calls:
        _replay(root, pending, call)
    draw = random.Random(f"{len(calls)} {names}")
    for change in pending:
        if names == "all" or (names.startswith("some") and draw.random() < 0.5):
            _make_safe(change)
    return {path: None if node.folder else _left_of(node, data) for path, node in _walk(root, "")}


def write_tree(tree: dict[str, bytes | None], target: Path) -> None:
    """Write a tree to a folder that does not exist yet."""
    target.mkdir(parents=True)
    for path, data in tree.items():
        if data is None:
            (target / path).mkdir()
        else:
            (target / path).write_bytes(data)


def _replay(root: _Node, pending: list[_Change], call: Call) -> None:
    match call.verb:
        case "make" | "truncate":
            folder, name = _parent(root, call.path)
            if name not in folder.names:
                _change(pending, (folder, name, _Node(folder=False)))
            elif call.verb == "truncate":
                node = folder.names[name]
                node.data, node.unsafe = b"", [b""]
        case "write":
            if (file := _find(root, call.path)) is not None:  # a file without a name any more is gone either way
                file.data += call.data
                file.unsafe.append(call.data)
        case "flush":
            if (flushed := _find(root, call.path)) is not None:
                _flush(flushed, pending)
        case "link":
            folder, name = _parent(root, call.target)
            _change(pending, (folder, name, _known(root, call.path)))
        case "rename":
            (source, old), (folder, name) = _parent(root, call.path), _parent(root, call.target)
            _change(pending, (folder, name, _known(root, call.path)), (source, old, None))
        case "mkdir":
            folder, name = _parent(root, call.path)
            _change(pending, (folder, name, _Node(folder=True)))
        case _:
            folder, name = _parent(root, call.path)
            _change(pending, (folder, name, None))


def _change(pending: list[_Change], *steps: tuple[_Node, str, _Node | None]) -> None:
    for folder, name, node in steps:
        if node is None:
            folder.names.pop(name, None)
        else:
            folder.names[name] = node
    pending.append(_Change(steps))


def _flush(node: _Node, pending: list[_Change]) -> None:
    if not node.folder:
        node.safe, node.unsafe = node.data, []
        return
    for change in [c for c in pending if any(folder is node for folder, _, _ in c.steps)]:
        _make_safe(change)
        pending.remove(change)


def _make_safe(change: _Change) -> None:
    for folder, name, node in change.steps:
        if node is None:
            folder.safe_names.pop(name, None)
        else:
            folder.safe_names[name] = node


def _left_of(node: _Node, data: str) -> bytes:
    if not node.unsafe or data == "kept":
        return node.data if data == "kept" else node.safe
    if data == "dropped":
        return node.safe
    if data == "zeroed":
        return bytes(len(node.data))
    if data == "halved":
        return node.data[: len(node.data) // 2]
    kept = len(node.data) - len(node.unsafe[-1])  # the last write came first, or the first half never did
    kept = kept or len(node.data) // 2
    return bytes(kept) + node.data[kept:]


def _walk(node: _Node, path: str) -> Iterator[tuple[str, _Node]]:
    for name, child in sorted(node.safe_names.items()):
        yield path + name, child
        yield from _walk(child, f"{path}{name}/")


def _load(at: Path) -> _Node:
    if at.is_file():
        data = at.read_bytes()
        return _Node(folder=False, data=data, safe=data)
    names = {path.name: _load(path) for path in at.iterdir()}
    return _Node(folder=True, names=dict(names), safe_names=dict(names))


def _find(root: _Node, path: str) -> _Node | None:
    node: _Node | None = root
    for name in path.split("/") if path else []:
        node = node.names.get(name) if node is not None else None
    return node


def _known(root: _Node, path: str) -> _Node:
    node = _find(root, path)
    assert node is not None, path
    return node


def _parent(root: _Node, path: str) -> tuple[_Node, str]:
    folder, _, name = path.rpartition("/")
    return _known(root, folder), name


def _under(store: Path, folder: str, text: str) -> str | None:
    """The path relative to the store, "" for the store itself, None where it lies elsewhere."""
    at = Path(_bytes(folder).decode(errors="replace").removesuffix("(deleted)")) / _bytes(text).decode(errors="replace")
    return str(at.relative_to(store)).removeprefix(".") if at.is_relative_to(store) else None


def _bytes(text: str) -> bytes:
    if "\\x" not in text:
        return text.encode()
    return bytes.fromhex(text.replace("\\x", ""))
