"""Show the whole of it on drawn people: build, train, build again, ask."""

import argparse
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.terminal import say, showing_progress
from store.errors import LookalikeError

__all__ = ["add_arguments", "run", "show"]

_MARK = ".lookalike-demo"
_ASKED = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many people, and where everything goes."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo"),
        help="where everything goes (default: ./demo); --store puts the store elsewhere",
    )
    parser.add_argument("--people", type=int, default=80, help="drawn people, at least 12 (default: 80)")
    parser.add_argument("--views", type=int, default=6, help="pictures of each, at least 2 (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="other people, another split (default: 0)")
    parser.add_argument("--max-seconds", type=float, help="stop training after so many seconds")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Draw, build, train, build again and ask."""
    from flows.build_index import build_index  # noqa: PLC0415
    from flows.train_encoder import train_encoder  # noqa: PLC0415
    from models.training import DEMO_SETTINGS  # noqa: PLC0415
    from tasks.steps.children import children  # noqa: PLC0415
    from tasks.steps.draw_people import draw_people  # noqa: PLC0415
    from tasks.steps.leave_one_out import leave_one_out  # noqa: PLC0415
    from tasks.steps.train_encoder import DEMO_NETWORK, new_encoder  # noqa: PLC0415

    if args.people < 12 or args.views < 2:
        raise LookalikeError(f"{args.people} people with {args.views} views are too few: wanted at least 12 with 2")
    out = _fresh_folder(args.out)
    store = str(Path(args.store or out / "store").resolve())
    workers = os.cpu_count() or 1
    photos = out / "photos"
    with showing_progress():
        say(f"drawing {args.people} people, {args.views} views of each")
        with children(workers):
            draw_people(
                photos, people=range(args.people), views=range(1, args.views + 1), seed=args.seed, workers=workers
            )
        untrained = new_encoder(store, settings=replace(DEMO_NETWORK, seed=args.seed))
        say("building version 1 with an untrained encoder (Prefect's first start takes half a minute)")
        before = build_index(source=str(photos), store=store, encoder=untrained, labels="folder", shard_photos=120)
        say("training")
        settings = replace(DEMO_SETTINGS, seed=args.seed)
        if args.max_seconds is not None:
            settings = replace(settings, max_seconds=args.max_seconds)
        trained = train_encoder(source=str(photos), store=store, start=untrained, settings=settings, shard_photos=120)
        say("building version 2 with the trained encoder, from the stored crops")
        built = build_index(source=str(photos), store=store, encoder=trained.encoder, shard_photos=120)
        first, second = (
            leave_one_out(store, version=n, people=trained.held_out) for n in (before["version"], built["version"])
        )
        sheet = _ask(
            out,
            store=store,
            args=args,
            held_out=set(trained.held_out),
            scores=(first.precision_at_1, second.precision_at_1),
        )
    return {
        "version": built["version"],
        "faces": built["faces"],
        "photos": built["photos"],
        "people": args.people,
        "held_out_people": len(trained.held_out),
        "queries": second.queries,
        "precision_at_1_before": round(first.precision_at_1, 4),
        "precision_at_1_after": round(second.precision_at_1, 4),
        "report": str(sheet),
        "picture": str(sheet.with_suffix(".png")),
        "version_report": str(Path(store) / "versions" / f"{built['version']:06d}" / "report.html"),
        "store": store,
    }


def _fresh_folder(out: Path) -> Path:
    """An empty folder for the demo; only what an earlier demo made is ever removed."""
    out = out.resolve()
    if out.exists() and any(out.iterdir()):
        if not (out / _MARK).is_file():
            raise LookalikeError(f"{out} is not empty and no earlier demo made it: give another folder with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).write_text("Made by `lookalike demo`, which may remove this folder.\n")
    return out


def _ask(out: Path, *, store: str, args: argparse.Namespace, held_out: set[str], scores: tuple[float, float]) -> Path:
    """Ask with unseen views of people the encoder was not trained on, and write the contact sheet."""
    from models.portraits import draw_person  # noqa: PLC0415
    from store.errors import QueryError  # noqa: PLC0415
    from tasks.steps.contact_sheet import write_contact_sheet  # noqa: PLC0415
    from tasks.steps.draw_people import draw_people, folder_name  # noqa: PLC0415
    from tasks.steps.query_photo import query_photo  # noqa: PLC0415

    names = {n: folder_name(draw_person(args.seed * 10_000 + n).name) for n in range(args.people)}
    people = [n for n, name in names.items() if name in held_out][:_ASKED]
    view = args.views + 1
    paths = draw_people(out / "queries", people=people, views=[view], seed=args.seed, workers=1, nested=False)
    answers, asked = [], []
    for number, path in zip(people, paths, strict=True):
        try:
            answers.append(query_photo(str(path), store=store, k=6))
        except QueryError as refused:
            say(str(refused))
            continue
        asked.append(names[number])
    sheet = out / "contact-sheet.html"
    lead = (
        f"Drawn people the encoder never trained on, in views that are not in the index, among all {args.people} people. "
        f"Precision@1 among those it never trained on: {scores[0]:.2f} untrained, {scores[1]:.2f} trained."
    )
    write_contact_sheet(
        answers,
        store=store,
        html=sheet,
        png=sheet.with_suffix(".png"),
        title="Drawn people, found again",
        lead=lead,
        people=asked,
    )
    return sheet


def show(result: dict[str, Any]) -> str:
    """What came out, where it is, and what to try next."""
    out = Path(result["report"]).parent
    return "\n".join(
        [
            f"precision@1 of {result['held_out_people']} people kept out of training ({result['queries']} queries): "
            f"{result['precision_at_1_before']:.3f} untrained -> {result['precision_at_1_after']:.3f} trained",
            f"contact sheet  {result['report']}",
            f"as a picture   {result['picture']}",
            f"index report   {result['version_report']}",
            f"pictures       {out / 'photos'}",
            "",
            "Next, on your own photos (a folder a person is best; an encoder trained on real faces sees far more):",
            "  lookalike build ~/Pictures --encoder ENCODER.onnx",
            "  lookalike query some-photo.jpg --out answer.html",
            "  lookalike train ~/Pictures",
        ]
    )
