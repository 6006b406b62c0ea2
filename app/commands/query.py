"""Ask who is in a photo."""

import argparse
from datetime import date
from pathlib import Path
from typing import Any

from app.store_option import store_of
from app.terminal import say
from store.errors import QueryError

__all__ = ["add_arguments", "run", "show"]

_LEAD = (
    "The most similar faces known. A percentage says how often a match like this one, found among so many faces, is the same person; "
    "without one, the cosine only says how alike two faces look to the encoder. Open a face to see where it is from."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """IMAGE and how to ask."""
    parser.add_argument(
        "image", metavar="IMAGE", nargs="?", help="a path, a url, s3://bucket/key, or a folder of photos"
    )
    parser.add_argument("--face-id", metavar="ID", help="ask with a face of the store instead, as an answer names it")
    parser.add_argument("--face", metavar="N", type=int, help="answer only face N of the photo, counted from 1")
    parser.add_argument("-k", type=int, default=10, help="matches a face (default: 10)")
    parser.add_argument("--version", type=int, help="the version to ask (default: the current one)")
    parser.add_argument("--encoder", help="refuse a version that was not built with this encoder")
    _add_filters(parser.add_argument_group("which faces are searched"))
    _add_shown(parser.add_argument_group("which matches are shown"))
    parser.add_argument("--out", metavar="FILE.html", type=Path, help="write a contact sheet")


def _add_filters(group: Any) -> None:
    group.add_argument(
        "--label", metavar="NAME", action="append", default=[], help="only faces of this person; may be repeated"
    )
    group.add_argument(
        "--source",
        metavar="SOURCE",
        action="append",
        default=[],
        help="only photos under this folder or prefix, or of this source",
    )
    group.add_argument(
        "--from", dest="taken_from", metavar="DATE", type=_day, help="only photos of this day or later, YYYY-MM-DD"
    )
    group.add_argument("--to", dest="taken_to", metavar="DATE", type=_day, help="only photos of this day or earlier")
    group.add_argument(
        "--min-quality", metavar="Q", type=float, default=0.0, help="least quality of a known face, 0 to 1"
    )
    group.add_argument(
        "--not-photo", metavar="URI", action="append", default=[], help="leave this photo out; may be repeated"
    )
    group.add_argument(
        "--not-itself", action="store_true", help="leave out the photo asked with, where the store knows it"
    )


def _add_shown(group: Any) -> None:
    group.add_argument("--min-cosine", metavar="C", type=float, default=-1.0, help="least cosine, -1 to 1")
    group.add_argument("--min-same-person", metavar="P", type=float, default=0.0, help="least probability, 0 to 1")
    group.add_argument("--fold", action="store_true", help="near-duplicate photos stand as one match")
    group.add_argument("--per-person", metavar="N", type=int, help="at most N matches of one labelled person")
    group.add_argument("--by-person", action="store_true", help="matches of one labelled person stand together")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Answer, and write the contact sheet where one is wanted; no Prefect is needed."""
    from tasks.steps.ask import ask_face, ask_folder, ask_photo, is_folder  # noqa: PLC0415
    from tasks.steps.query_options import QueryOptions  # noqa: PLC0415

    if (args.image is None) == (args.face_id is None):
        raise QueryError(
            "give either IMAGE or --face-id: what is asked with is one photo, one folder or one known face"
        )
    store = store_of(args)
    options = QueryOptions(
        k=args.k,
        version=args.version,
        encoder=args.encoder,
        face=args.face,
        labels=tuple(args.label),
        sources=tuple(args.source),
        taken_from=args.taken_from,
        taken_to=args.taken_to,
        min_quality=args.min_quality,
        min_cosine=args.min_cosine,
        min_same_person=args.min_same_person,
        not_photos=tuple(args.not_photo),
        not_itself=args.not_itself,
        fold=args.fold,
        per_person=args.per_person,
    )
    if args.image is not None and is_folder(args.image):
        asked = list(ask_folder(args.image, store=store, options=options))
        answers = [one.answer for one in asked if one.answer is not None]
        refused = [{"image": one.image, "error": one.refusal} for one in asked if one.answer is None]
        result = {"answers": [answer.as_json() for answer in answers], "refused": refused}
    else:
        answer = (
            ask_photo(args.image, store=store, options=options)
            if args.image is not None
            else ask_face(args.face_id, store=store, options=options)
        )
        answers, result = [answer], answer.as_json()
    for warning in dict.fromkeys(warning for answer in answers for warning in answer.warnings):
        say(f"lookalike: warning: {warning}")
    if args.out is not None:
        _write_sheet(answers, args, store)
    return result


def _write_sheet(answers: list[Any], args: argparse.Namespace, store: str) -> None:
    from tasks.steps.contact_sheet import write_contact_sheet  # noqa: PLC0415

    write_contact_sheet(answers, store=store, html=args.out, lead=_LEAD, by_person=args.by_person)
    say(f"wrote {args.out}")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: wanted YYYY-MM-DD") from error


def show(result: dict[str, Any]) -> str:
    """A block a face, a line a match."""
    if "answers" not in result:
        return _shown(result)
    blocks = [_shown(answer) for answer in result["answers"]]
    blocks += [f"{one['image']}: {one['error']}" for one in result["refused"]]
    return "\n\n".join(blocks)


def _shown(answer: dict[str, Any]) -> str:
    calibrated = "" if answer["calibration"] else ", uncalibrated: the number is a cosine"
    lines = [f"version {answer['version']}, {answer['image']}, {answer['searched']:,} faces searched{calibrated}"]
    for face in answer["faces"]:
        x1, y1, x2, y2 = (round(side) for side in face["box"])
        lines.append(f"face {face['number']} at {x1},{y1}-{x2},{y2}, score {face['score']:.3f}")
        for match in face["matches"]:
            sure = "" if match["same_person"] is None else f"  {match['same_person']:6.1%}  {match['grade']:<32}"
            copies = f" (and {len(match['folded'])} nearly the same)" if match["folded"] else ""
            lines.append(f"  {match['cosine']:6.3f}{sure}  {match['label'] or '':<24} {match['uri']}{copies}")
    return "\n".join(lines)
