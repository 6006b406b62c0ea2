"""Pairs of photos as a file names them: LFW's View 1 and View 2, or a CSV of one's own."""

import csv
import io
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from store.errors import SourceError
from store.sources import read_uri
from store.storage import normalise_uri

__all__ = ["MAX_BYTES", "MAX_PAIRS", "Pair", "PairsFile", "PhotoName", "parse_pairs", "read_pairs", "read_people"]

MAX_BYTES = 128 * 2**20
MAX_PAIRS = 1_000_000
_NAME_CHARS = 255
_PATH_CHARS = 1024
_SHOWN_PROBLEMS = 5
_HEADER = re.compile(r"[0-9]{1,9}(\t[0-9]{1,9})?")
_NUMBER = re.compile(r"[0-9]{1,6}")
_SAME = {"1": True, "true": True, "0": False, "false": False}
_HELP = (
    'wanted LFW\'s format (first line "500", or "10<tab>300") or a CSV with the columns first, second and same, '
    "and fold if it has folds"
)


@dataclass(frozen=True, slots=True)
class PhotoName:
    """A photo as a pairs file calls it.

    Attributes:
        path: relative to the folder of images, with slashes.
        suffixed: whether the path ends with the file's suffix; LFW's names do not.
        person: who it shows, where the file says so.
    """

    path: str
    suffixed: bool
    person: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photos, and whether they show one person.

    Attributes:
        line: where it stands in the file, from 1.
        first: one photo.
        second: the other.
        same: one person.
        fold: the number of its fold, or None where the file has no folds.
    """

    line: int
    first: PhotoName
    second: PhotoName
    same: bool
    fold: int | None = None


@dataclass(frozen=True)
class PairsFile:
    """A parsed pairs file.

    Attributes:
        uri: the file.
        format: "LFW, view 1" (no folds), "LFW, view 2" (folds) or "CSV".
        pairs: in the file's order.
        people_unknown: why nobody knows who the photos show, or None: every photo then has a person.
    """

    uri: str
    format: Literal["LFW, view 1", "LFW, view 2", "CSV"]
    pairs: tuple[Pair, ...]
    people_unknown: str | None = None


def read_pairs(pairs: str) -> PairsFile:
    """The pairs in a file.

    Args:
        pairs: its path or url.

    Raises:
        SourceError: it cannot be read, is too large, or has problems; the message names the first few with their lines.
    """
    uri = normalise_uri(pairs)
    return parse_pairs(_read(uri, what="pairs file"), where=uri)


def read_people(people: str) -> frozenset[str]:
    """The names in a list of people, one a line.

    LFW's own lists are taken too: what follows a tab is passed over, and so is a first line that is a number.

    Raises:
        SourceError: it cannot be read, or names nobody.
    """
    uri = normalise_uri(people)
    lines = _text(_read(uri, what="list of people"), uri).split("\n")
    if _HEADER.fullmatch(lines[0].strip()):
        lines = lines[1:]
    names = frozenset(line.split("\t")[0].strip() for line in lines) - {""}
    if not names:
        raise SourceError(f"the list of people {uri} names nobody: wanted one name a line")
    return names


def parse_pairs(data: bytes, *, where: str) -> PairsFile:
    """The pairs in a file's bytes.

    LFW's first line is the number of pairs of each kind, View 2's the number of folds and of pairs of each kind in one. Then
    follow, fold by fold, the pairs of one person (`name n1 n2`, parted by tabs) and those of two (`name1 n1 name2 n2`);
    photo n of a person is `name/name_000n`. A CSV has a header with `first` and `second` (paths), `same` (0, 1, true, false)
    and, if it likes, `fold` (a whole number); other columns are passed over. There a photo's folder is its person, if
    all pairs agree with that.

    Args:
        data: UTF-8.
        where: the file's uri, for messages.

    Raises:
        SourceError: the message names the first few problems with their lines, and how many there are.
    """
    text = _text(data, where)
    lines = text.split("\n")
    first = lines[0].strip()
    problems: list[str] = []
    if _HEADER.fullmatch(first):
        pairs = list(_lfw_pairs(lines, problems))
        kind: Literal["LFW, view 1", "LFW, view 2", "CSV"] = "LFW, view 2" if "\t" in first else "LFW, view 1"
        unknown = None
    else:
        pairs = list(_csv_pairs(text, problems))
        kind = "CSV"
        unknown = _why_people_are_unknown(pairs)
    if not pairs and not problems:
        problems.append("line 1: no pair follows")
    if problems:
        more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise SourceError(f"the pairs file {where} cannot be used: {'; '.join(problems[:_SHOWN_PROBLEMS])}{more}")
    if unknown is not None:
        pairs = [Pair(p.line, _nobody(p.first), _nobody(p.second), p.same, p.fold) for p in pairs]
    return PairsFile(uri=where, format=kind, pairs=tuple(pairs), people_unknown=unknown)


def _read(uri: str, *, what: str) -> bytes:
    try:
        data = read_uri(uri, max_bytes=MAX_BYTES)
    except FileNotFoundError as error:
        raise SourceError(f"the {what} {uri} does not exist") from error
    except Exception as error:  # every backend has its own kinds
        raise SourceError(f"the {what} {uri} cannot be read ({type(error).__name__}: {error})") from error
    if len(data) > MAX_BYTES:
        raise SourceError(f"the {what} {uri} has more than {MAX_BYTES:,} bytes: that is no such file")
    return data


def _text(data: bytes, where: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{where} cannot be read (it is no UTF-8): save it as UTF-8 text") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _lfw_pairs(lines: list[str], problems: list[str]) -> Iterator[Pair]:
    """The pairs after the header, in blocks of equal length: same and different in turn, a block of each in a fold."""
    header = [int(part) for part in lines[0].strip().split("\t")]
    folds, block = (header[0], header[1]) if len(header) == 2 else (1, header[0])
    wanted = 2 * folds * block
    numbered = [(n, line.rstrip()) for n, line in enumerate(lines[1:], start=2) if line.strip()]
    if wanted > MAX_PAIRS:
        problems.append(f"line 1: {wanted:,} pairs are announced, the limit is {MAX_PAIRS:,}")
        return
    if len(numbered) != wanted:
        problems.append(f"line 1: {wanted:,} pairs are announced, {len(numbered):,} lines follow")
        return
    for k, (number, line) in enumerate(numbered):
        same = (k // block) % 2 == 0
        pair = _lfw_pair(number, line.split("\t"), same, fold=k // (2 * block) if len(header) == 2 else None)
        if isinstance(pair, Pair):
            yield pair
        else:
            problems.append(f"line {number}: {pair}")


def _lfw_pair(line: int, parts: list[str], same: bool, *, fold: int | None) -> Pair | str:
    """A line's pair, or what is wrong with it."""
    if len(parts) != (3 if same else 4):
        kind, shape = ("one person", "name n1 n2") if same else ("two people", "name1 n1 name2 n2")
        return f"got {len(parts)} columns, wanted a pair of {kind}: {shape}, parted by tabs"
    name, number, other_name, other_number = parts if not same else (parts[0], parts[1], parts[0], parts[2])
    for person in (name, other_name):
        if not person or person.startswith(".") or "/" in person or "\0" in person or len(person) > _NAME_CHARS:
            return f"{person!r:.60} is no name: it may not be empty, start with a dot or hold a slash"
    for text in (number, other_number):
        if not _NUMBER.fullmatch(text):
            return f"{text!r:.30} is no photo's number"
    first, second = _lfw_photo(name, number), _lfw_photo(other_name, other_number)
    if first == second:
        return "a photo is paired with itself"
    if name == other_name and not same:
        return f"{name!r:.60} is paired with themselves as two people"
    return Pair(line, first, second, same, fold)


def _lfw_photo(name: str, number: str) -> PhotoName:
    return PhotoName(path=f"{name}/{name}_{int(number):04d}", suffixed=False, person=name)


def _csv_pairs(text: str, problems: list[str]) -> Iterator[Pair]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        missing = [name for name in ("first", "second", "same") if name not in header]
        if missing or len(set(header)) != len(header):
            problems.append(f"line 1: it begins with {text[:60].splitlines()[:1]!r:.70}, {_HELP}")
            return
        take = _csv_row(header)
        count = 0
        for row in rows:
            if not row:
                continue
            count += 1
            if count > MAX_PAIRS:
                problems.append(f"line {rows.line_num}: there are more than {MAX_PAIRS:,} pairs, which is the limit")
                return
            pair = take(rows.line_num, row)
            if isinstance(pair, Pair):
                yield pair
            else:
                problems.append(f"line {rows.line_num}: {pair}")
    except csv.Error as error:
        problems.append(f"line {rows.line_num}: it is no CSV ({error})")


def _csv_row(header: list[str]) -> Callable[[int, list[str]], Pair | str]:
    """What makes a pair of a row, or says what is wrong with it."""
    at: dict[str, int] = {name: header.index(name) for name in ("first", "second", "same", "fold") if name in header}

    def take(line: int, row: list[str]) -> Pair | str:
        if len(row) != len(header):
            return f"got {len(row)} columns, the header has {len(header)}"
        cells: dict[str, str] = {name: row[place].strip() for name, place in at.items()}
        paths = [_inside(cells[name]) for name in ("first", "second")]
        for name, path in zip(("first", "second"), paths, strict=True):
            if path is None:
                return f"{name} is {cells[name]!r:.60}, wanted a path inside the folder of images"
        first, second = (PhotoName(str(path), suffixed=True, person=posixpath.dirname(str(path))) for path in paths)
        if first == second:
            return "a photo is paired with itself"
        if (same := _SAME.get(cells["same"].lower())) is None:
            return f"same is {cells['same']!r:.30}, wanted 0, 1, true or false"
        fold = cells.get("fold")
        if fold is not None and not _NUMBER.fullmatch(fold):
            return f"fold is {fold!r:.30}, wanted a whole number in every row, or no such column"
        return Pair(line, first, second, same, int(fold) if fold is not None else None)

    return take


def _inside(path: str) -> str | None:
    """The path without needless dots, None if it is empty, absolute, a url or leads out of its folder."""
    if not path or len(path) > _PATH_CHARS or "\0" in path or "://" in path or path.startswith(("/", "~")):
        return None
    normal = posixpath.normpath(path)
    return None if normal in {".", ".."} or normal.startswith("../") or ".." in path.split("/") else normal


def _why_people_are_unknown(pairs: list[Pair]) -> str | None:
    """Why a CSV's folders cannot be people, None if they can: the same folder exactly where the pair is one person."""
    for pair in pairs:
        if not pair.first.person or not pair.second.person:
            return f"line {pair.line} names a photo that lies in no person's folder"
        if (pair.first.person == pair.second.person) != pair.same:
            what = "one person lies in two folders" if pair.same else "two people lie in one folder"
            return f"folders are not people: on line {pair.line} {what}"
    return None


def _nobody(photo: PhotoName) -> PhotoName:
    return PhotoName(photo.path, photo.suffixed)
