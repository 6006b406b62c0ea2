"""Take what was forgotten out of Prefect's own database, where that is a file of this machine."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from tasks.steps.forget_scan import Needles, scan_bytes

__all__ = ["redact_prefect", "scan_prefect"]

_INSTEAD = b"forgotten"
_NO_PICTURES = "A face that was shown here was forgotten, and the pictures with it."
_WAIT_S = 60.0


def redact_prefect(needles: Needles) -> int:
    """Put another word in the place of every uri, label, face id and photo hash, in names, parameters, logs and artifacts.

    Artifacts with pictures that hold one lose all they show, for nobody can tell whose the pictures are, and so do the events that
    repeat them; results that hold one go.

    Returns:
        The changes to rows; 0 where Prefect keeps its data elsewhere.
    """
    changed = 0
    words = sorted(_words(needles), key=lambda word: (-len(word), word))
    for path in _databases():
        with contextlib.closing(sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)) as database:
            database.execute("PRAGMA secure_delete = ON")
            changed += _remove_pictures(database, words)
            for table, column in list(_columns(database)):
                changed += _redact(database, table, column, words)
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if changed:
                database.execute("VACUUM")
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for path in _results():
        if any(scan_bytes(path.read_bytes(), needles).values()):
            path.unlink(missing_ok=True)
    return changed


def scan_prefect(needles: Needles) -> tuple[int, dict[str, int]]:
    """Look through the database, its journal and the results that Prefect keeps in its home.

    Returns:
        Files looked through, and hits by kind.
    """
    files = [*_databases(), *_beside_databases(), *_results()]
    hits = dict.fromkeys(needles.counts(), 0)
    for path in files:
        for kind, n in scan_bytes(path.read_bytes(), needles).items():
            hits[kind] += n
    return len(files), hits


def _home() -> Path | None:
    home = os.environ.get("PREFECT_HOME")
    return Path(home).expanduser() if home else None


def _databases() -> list[Path]:
    home = _home()
    return [home / "prefect.db"] if home and (home / "prefect.db").is_file() else []


def _results() -> list[Path]:
    """What flows and tasks returned, where no other place was set."""
    home = _home()
    folder = home / "storage" if home else None
    return [path for path in folder.rglob("*") if path.is_file()] if folder and folder.is_dir() else []


def _beside_databases() -> list[Path]:
    return [path for one in _databases() for end in ("-wal", "-journal") if (path := Path(f"{one}{end}")).is_file()]


def _words(needles: Needles) -> Iterator[tuple[bytes, bytes]]:
    """What is replaced, by what: a label with its quotes, everything else by itself."""
    for word in needles.uri | needles.face_id | needles.photo_hash:
        with contextlib.suppress(UnicodeDecodeError):
            word.decode()
            yield word, _INSTEAD
    for word in needles.label:
        quote = word[: len(word) - len(word.lstrip(b'\\"'))]
        yield word, quote + _INSTEAD + quote


def _columns(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        if table.startswith("sqlite_"):
            continue
        for _, column, *_ in database.execute(f"PRAGMA table_info({_quoted(table)})").fetchall():
            yield table, str(column)


def _remove_pictures(database: sqlite3.Connection, words: list[tuple[bytes, bytes]]) -> int:
    """Empty every column that shows pictures, in rows that hold a word: artifacts, and the events that repeat them."""
    columns: dict[str, list[str]] = {}
    for table, column in _columns(database):
        columns.setdefault(table, []).append(column)
    changed = 0
    for table, names in columns.items():
        held = " OR ".join(f"instr({_quoted(name)}, :word)" for name in names)
        for name in names:
            shows = f"typeof({_quoted(name)}) = 'text' AND instr({_quoted(name)}, 'data:image/')"
            if not database.execute(f"SELECT 1 FROM {_quoted(table)} WHERE {shows} LIMIT 1").fetchone():  # noqa: S608
                continue
            for word, _ in words:
                done = database.execute(
                    f"UPDATE {_quoted(table)} SET {_quoted(name)} = {_emptied(name)} WHERE {shows} AND ({held})",  # noqa: S608
                    {"instead": _NO_PICTURES, "word": word.decode()},
                )
                changed += done.rowcount
    return changed


def _emptied(column: str) -> str:
    """SQL of a sentence in the shape that the column has: a JSON object, any other JSON, or text."""
    name = _quoted(column)
    return (
        f"CASE WHEN NOT json_valid({name}) THEN :instead "
        f"WHEN json_type({name}) = 'object' THEN json_object('data', :instead) ELSE json_quote(:instead) END"
    )


def _redact(database: sqlite3.Connection, table: str, column: str, words: list[tuple[bytes, bytes]]) -> int:
    name, changed = _quoted(column), 0
    for word, instead in words:
        text = word.decode()
        done = database.execute(
            f"UPDATE {_quoted(table)} SET {name} = replace({name}, ?, ?) WHERE typeof({name}) = 'text' AND instr({name}, ?)",  # noqa: S608
            (text, instead.decode(), text),
        )
        changed += done.rowcount
    return changed


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
