"""The page of an evaluation: one self-contained file with its figures, its pictures and the pairs it is most wrong about."""

import base64
import io
import posixpath
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from store.layout import open_store
from store.shards import read_faces
from store.storage import Storage
from tasks.steps.contract import Contract
from tasks.steps.evaluation import FACE_CHOICE, Evaluation, WrongPair
from tasks.steps.evaluation_plots import plots_of
from tasks.steps.pages import jpeg_url, render

__all__ = ["evaluation_markdown", "write_evaluation_page"]

_THUMB_PX = 168
_ARTIFACT_BYTES = 190_000
_FALSE_ACCEPTS = 10  # that a FAR worth a headline allows


@dataclass(frozen=True)
class _Tile:
    """A headline figure."""

    name: str
    value: str
    detail: str


def write_evaluation_page(evaluation: Evaluation, *, store: str, contract: Contract, html: Path) -> None:
    """Write the page, with thumbnails cut from the store's crops.

    Args:
        evaluation: the figures.
        store: its uri.
        contract: of the shards that were measured.
        html: where the page goes; missing folders are made.
    """
    html.parent.mkdir(parents=True, exist_ok=True)
    crops = _thumbnails(evaluation.wrong, storage=open_store(store), contract=contract.id)
    page = render(
        "evaluation.html.j2",
        e=evaluation,
        pairs_name=posixpath.basename(evaluation.pairs_file),
        tiles=_tiles(evaluation),
        plots=plots_of(evaluation),
        wrong=[_shown(pair, crops) for pair in evaluation.wrong],
        face_choice=FACE_CHOICE,
        contract=contract.id,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        url=jpeg_url,
    )
    html.write_bytes(page)


def evaluation_markdown(evaluation: Evaluation) -> str:
    """The figures as a Markdown table and the pictures inside it, for an artifact; no names of people or photos."""
    lines = [
        f"# {_plain(evaluation.encoder_name)}: {evaluation.pairs:,} pairs",
        "",
        "| figure | value | |",
        "|:-|-:|:-|",
    ]
    lines += [f"| {tile.name} | {tile.value} | {tile.detail} |" for tile in _tiles(evaluation)]
    for row in evaluation.tar_at_far:
        value, detail = "not measured", row.reason or ""
        if row.tar is not None:
            value, detail = f"{row.tar:.4f}", f"95 % interval {row.low:.4f} to {row.high:.4f}"
        lines.append(f"| TAR at FAR {row.far:g} | {value} | {detail} |")
    if evaluation.retrieval is not None:
        lines.append(f"| mean average precision | {evaluation.retrieval.mean_average_precision:.4f} | retrieval |")
    text = "\n".join(lines) + "\n"
    for plot in plots_of(evaluation):
        picture = f"\n![{plot.title}](data:image/png;base64,{base64.b64encode(plot.png(dpi=90)).decode()})\n"
        if len(text) + len(picture) <= _ARTIFACT_BYTES:
            text += picture
    return text


def _tiles(evaluation: Evaluation) -> list[_Tile]:
    folds = evaluation.folds
    covered = (
        "" if evaluation.accuracy_covered is None else f"{evaluation.accuracy_covered:.4f} among pairs with two faces"
    )
    tiles = [
        _Tile(
            "accuracy",
            f"{folds.mean:.4f}",
            f"± {folds.std:.4f} over {len(folds.folds)} folds" + (f"; {covered}" if evaluation.coverage < 1 else ""),
        ),
        _Tile("AUC", f"{evaluation.auc:.4f}", "chance that a pair of one person scores higher than one of two"),
        _Tile(
            "equal error rate",
            f"{evaluation.equal_error.rate:.4f}",
            "both errors, at the threshold that makes them equal",
        ),
        _Tile(
            "coverage",
            f"{100 * evaluation.coverage:.2f} %",
            f"{evaluation.covered:,} of {evaluation.pairs:,} pairs have two faces",
        ),
    ]
    measured = [row for row in evaluation.tar_at_far if row.tar is not None]
    if measured:
        different = evaluation.pairs - evaluation.same
        chosen = next((row for row in reversed(measured) if row.far * different >= _FALSE_ACCEPTS), measured[0])
        detail = f"pairs of one person accepted when 1 of {1 / chosen.far:,.0f} pairs of two is"
        tiles.insert(1, _Tile(f"TAR at FAR {chosen.far:g}", f"{chosen.tar:.4f}", detail))
    return tiles


def _shown(pair: WrongPair, crops: dict[tuple[str, int], bytes]) -> dict[str, object]:
    photos = [
        {"name": name, "picture": crops.get(face)}
        for name, face in zip((pair.first, pair.second), pair.faces, strict=True)
    ]
    return {"photos": photos, "same": pair.same, "cosine": pair.cosine, "threshold": pair.threshold}


def _thumbnails(pairs: tuple[WrongPair, ...], *, storage: Storage, contract: str) -> dict[tuple[str, int], bytes]:
    wanted = {face for pair in pairs for face in pair.faces}
    found: dict[tuple[str, int], bytes] = {}
    for shard in sorted({shard for shard, _ in wanted}):
        table = read_faces(storage, contract=contract, shard=shard, columns=["face_id", "crop", "rotation"])
        for row in table.to_pylist():
            place = (shard, int(row["face_id"]))
            if place in wanted:
                found[place] = _thumbnail(row["crop"], int(row["rotation"] or 0))
    return found


def _thumbnail(crop: bytes, rotation: int) -> bytes:
    """The middle of a crop, turned so that its face is upright."""
    with Image.open(io.BytesIO(crop)) as image:
        side = image.width
        middle = image.convert("RGB").crop((side // 8, side // 8, side - side // 8, side - side // 8))
    middle.thumbnail((_THUMB_PX, _THUMB_PX))
    sink = io.BytesIO()
    middle.rotate(rotation, expand=True).save(sink, "JPEG", quality=85)
    return sink.getvalue()


def _plain(text: str) -> str:
    """A name without what Markdown or HTML would take for its own."""
    return "".join(c if c.isalnum() or c in " .,:-" else " " for c in text)[:100]
