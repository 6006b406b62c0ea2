"""How far a version's probabilities are from what is so, on people that they were not fitted on; three methods side by side.

    lookalike build LFW/images --labels folder --encoder mobilefacenet.onnx --store STORE
    python -m benchmarks.calibration --store STORE [--lists LFW] [--divisions N] [--pictures docs/pictures] [--json]

People are divided as the version's own calibration divides them, then anew N times, each time also fitting on only 60, 125, 250,
500 and 1,000 people, and by LFW's lists of View 1 where LISTS holds them. On each division a method is fitted on the pairs of one group and
tried on the other's, in two ways:

pairs     all pairs of the other group, both kinds weighing the same.
answers   the ten most similar faces of each question, and the first of them alone, with the prior that an answer uses. Everybody of
          the other group with several photos asks by the main face of one, which is left out of the search; as many who have no
          other photo ask too, so that the person asked about is there every second time, as `models/same_person.py` assumes.

ECE is the expected calibration error in 15 bins; log-loss is in nats. "By chance" is the ECE that the first answers would have on
the mean, were everything said of them true: so few of them never come out even. "Most" is the highest probability that the fit
gives to any face among the gallery's. Sampling is seeded: the same store gives the same figures.
"""

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.calibrators import METHODS
from benchmarks.lfw_faces import read_people
from benchmarks.machine import describe_machine
from models.calibration import LogRatio, calibration_error, reliability
from models.same_person import Calibration, LabelledPairs, calibrate, cell_cosines, check_pairs
from store.layout import open_store
from store.storage import normalise_uri
from store.version_files import read_faces_of, read_photos_of
from store.versions import read_version
from tasks.steps.calibration_picture import probability_svg, reliability_svg, standalone
from tasks.steps.face_blocks import Gallery as HeldFaces
from tasks.steps.labelled_pairs import LabelledFaces, faces_of_people, halves_of, labelled_pairs
from tasks.steps.stored_faces import read_face_vectors

__all__ = ["Answers", "Gallery", "answers_of", "divisions", "main", "measure", "read_gallery"]

_TOP = 10
_FIGURES = ("ece_pairs", "loss_pairs", "ece_answers", "loss_answers", "ece_first", "ece_first_by_chance", "most")
_SEED = 0
_FEW = (60, 125, 250, 500, 1_000)
_HALVES = "other halves"
_DRAWS = 200

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Gallery(NamedTuple):
    """A published version: its tables, and its faces' embeddings, float32 (N, D), by rising id, int64 (N,)."""

    faces: pa.Table
    photos: pa.Table
    ids_N: npt.NDArray[np.int64]
    emb_ND: npt.NDArray[np.float32]

    def of(self, people: frozenset[str]) -> LabelledFaces:
        """The main faces of some people."""
        return faces_of_people(people, faces=self.faces, photos=self.photos, opened=HeldFaces(self.ids_N, self.emb_ND))

    def photos_of(self) -> Counter[str]:
        """How many indexed photos each labelled person has."""
        indexed = self.photos.filter(pc.equal(self.photos["status"], "indexed"))
        return Counter(indexed["label"].drop_null().to_pylist())


class Answers(NamedTuple):
    """Q questions, K = 10 faces found for each: cosines, (Q, K), falling; whether each is the person asked about; faces searched."""

    cosines_QK: Floats
    right_QK: Bools
    searched: int


def read_gallery(store: str) -> Gallery:
    """The store's current version."""
    storage = open_store(store)
    version = read_version(storage)
    faces, photos = read_faces_of(storage, version), read_photos_of(storage, version)
    encoder = version.manifest.encoder
    emb_ND = read_face_vectors(
        storage, faces, encoder=encoder.id, dimension=encoder.dimension, recorded=version.manifest
    )
    return Gallery(faces, photos, faces["face_id"].to_numpy(), emb_ND)


def divisions(gallery: Gallery, *, anew: int, lists: Path | None) -> Iterator[tuple[str, LabelledFaces, LabelledFaces]]:
    """Each way of dividing people: its name, whom to fit on, whom to try on."""
    photos, size = gallery.photos_of(), len(gallery.ids_N)
    fit_on, try_on = (gallery.of(half) for half in halves_of(photos, gallery=size))
    yield "the version's own", fit_on, try_on
    for seed in range(anew):
        halves = halves_of(photos, gallery=size, seed=seed)
        fit_on, try_on = (gallery.of(half) for half in halves)
        yield f"{_HALVES} {seed}", fit_on, try_on
        shuffled = np.random.default_rng(seed).permutation(sorted(halves[0])).tolist()
        for few in _FEW:
            if few < len(shuffled):
                yield f"{_fitted_on(few)} {seed}", gallery.of(frozenset(shuffled[:few])), try_on
    if lists is not None:
        learn, ask = (frozenset(read_people(lists / f"peopleDev{part}.txt")) for part in ("Train", "Test"))
        yield "View 1's lists", gallery.of(learn), gallery.of(ask)


def answers_of(gallery: Gallery, asking: LabelledFaces) -> Answers:
    """What people who have several photos are answered, and as many who have one."""
    generator = np.random.default_rng(_SEED)
    of_person: dict[str, list[int]] = {}
    for row, label in enumerate(asking.label_L.tolist()):
        of_person.setdefault(label, []).append(row)
    several = [person for person in sorted(of_person) if len(of_person[person]) > 1]
    single = [person for person in sorted(of_person) if len(of_person[person]) == 1][: len(several)]
    label_N = np.array(gallery.faces["label"].to_pylist(), object)
    cosines: list[npt.NDArray[np.float32]] = []
    right: list[Bools] = []
    for person in several + single:
        row = int(generator.choice(of_person[person]))
        found = gallery.emb_ND @ asking.emb_LD[row]
        found[np.searchsorted(gallery.ids_N, asking.ids_L[row])] = -np.inf
        top = np.argsort(-found)[:_TOP]
        cosines.append(found[top])
        right.append(label_N[top] == person)
    return Answers(np.stack(cosines).astype(np.float64), np.stack(right), len(label_N) - 1)


def measure(gallery: Gallery, *, anew: int, lists: Path | None) -> list[dict[str, Any]]:
    """A row for each division and method."""
    rows: list[dict[str, Any]] = []
    tried_on = None
    for name, fitted_faces, checked_faces in divisions(gallery, anew=anew, lists=lists):
        if checked_faces is not tried_on:
            tried_on, checked, answers = (
                checked_faces,
                labelled_pairs(checked_faces),
                answers_of(gallery, checked_faces),
            )
        fitted = labelled_pairs(fitted_faces)
        prior = _calibrate(gallery, fitted, checked).prior(answers.searched)
        for method, fit in METHODS.items():
            ratio = fit(fitted)
            rows.append(
                {"division": name, "method": method, "people": checked.people, "faces": checked.faces}
                | {"same": len(checked.same), "different": int(checked.different.sum())}
                | _on_pairs(ratio, checked)
                | _on_answers(ratio, answers, prior)
            )
    return rows


def _on_pairs(ratio: LogRatio, pairs: LabelledPairs) -> dict[str, float]:
    filled = np.flatnonzero(pairs.different)
    same = _loss(ratio.log_ratio(pairs.same), np.ones(len(pairs.same), bool)).mean()
    different = _loss(ratio.log_ratio(cell_cosines()[filled]), np.zeros(len(filled), bool))
    loss = (same + np.average(different, weights=pairs.different[filled])) / 2
    return {"ece_pairs": calibration_error(check_pairs(ratio, pairs)), "loss_pairs": float(loss)}


def _on_answers(ratio: LogRatio, answers: Answers, prior: float) -> dict[str, float]:
    logits_QK = ratio.log_ratio(answers.cosines_QK.ravel()).reshape(answers.cosines_QK.shape) + _logit(prior)
    said_QK = 1 / (1 + np.exp(-logits_QK))
    every = calibration_error(reliability(said_QK.ravel(), answers.right_QK.ravel()))
    first = calibration_error(reliability(said_QK[:, 0], answers.right_QK[:, 0]))
    most = 1 / (1 + np.exp(-ratio.log_ratio(np.ones(1))[0] - _logit(prior)))
    loss = float(_loss(logits_QK, answers.right_QK).mean())
    return {
        "answers": logits_QK.size,
        "ece_answers": every,
        "loss_answers": loss,
        "ece_first": first,
        "ece_first_by_chance": _by_chance(said_QK[:, 0]),
        "most": float(most),
    }


def _by_chance(said_Q: Floats) -> float:
    """The error that these probabilities have on the mean where each is true."""
    generator = np.random.default_rng(_SEED)
    drawn = (generator.random(len(said_Q)) < said_Q for _ in range(_DRAWS))
    return float(np.mean([calibration_error(reliability(said_Q, truth)) for truth in drawn]))


def _fitted_on(people: int) -> str:
    return f"fitted on {people} people"


def _logit(share: float) -> float:
    return float(np.log(share) - np.log1p(-share))


def _loss(logits: Floats, truth: Bools) -> Floats:
    loss: Floats = np.logaddexp(0.0, np.where(truth, -logits, logits))
    return loss


def _summed_up(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was divided anew as one row a method: means, with the smallest and largest beside them."""
    again = (_HALVES, *map(_fitted_on, _FEW))
    summed = [row for row in rows if not row["division"].startswith(again)]
    for kind, method in itertools.product(again, METHODS):
        some = [row for row in rows if row["division"].startswith(kind) and row["method"] == method]
        if some:
            means = {key: float(np.mean([row[key] for row in some])) for key in _FIGURES}
            spans = {f"{key}_span": [float(of(row[key] for row in some)) for of in (min, max)] for key in means}
            summed.append({"division": f"{kind}, {len(some)} times", "method": method} | means | spans)
    return summed


def _line(row: dict[str, Any]) -> str:
    figures = []
    for key in _FIGURES:
        low, high = row.get(f"{key}_span", (None, None))
        span = "" if low is None else f" ({low:.4f} to {high:.4f})"
        figures.append(f"{row[key]:.4f}{span}")
    return "| " + " | ".join([row["division"], row["method"], *figures]) + " |"


def main() -> int:
    """Print a table in Markdown; the last line is one JSON object with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="holds a version of labelled photos")
    parser.add_argument("--lists", type=Path, help="folder with peopleDevTrain.txt and peopleDevTest.txt")
    parser.add_argument("--divisions", type=int, default=10, help="divide so many times more (default: 10)")
    parser.add_argument("--pictures", type=Path, help="draw the version's own calibration there, as two SVG files")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    gallery = read_gallery(normalise_uri(args.store))
    rows = _summed_up(measure(gallery, anew=args.divisions, lists=args.lists))
    result = {"faces": len(gallery.ids_N), "rows": rows, "machine": describe_machine()}
    print(f"{len(gallery.ids_N):,} faces; {result['machine']}")
    for row in rows:
        if "people" in row and row["method"] == next(iter(METHODS)):
            print(
                "{division}: tried on {people:,} people, {faces:,} faces, {same:,} pairs of one person, "
                "{different:,} of two, {answers:,} answers".format(**row)
            )
    print(
        "| people | method | ECE, pairs | log-loss | ECE, answers | log-loss | ECE, first answers | by chance | most |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    print("\n".join(map(_line, rows)))
    if args.pictures is not None:
        _write_pictures(gallery, args.pictures)
    if args.json:
        print(json.dumps(result))
    return 0


def _write_pictures(gallery: Gallery, folder: Path) -> None:
    """The pictures that the version's report has, as files of their own."""
    (_, fitted, checked), *_ = divisions(gallery, anew=0, lists=None)
    calibration = _calibrate(gallery, labelled_pairs(fitted), labelled_pairs(checked))
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {
        "reliability.svg": reliability_svg(calibration),
        "probability.svg": probability_svg(calibration, len(gallery.ids_N)),
    }
    for name, svg in drawn.items():
        (folder / name).write_text(standalone(svg))


def _calibrate(gallery: Gallery, fitted: LabelledPairs, checked: LabelledPairs) -> Calibration:
    photos = gallery.photos_of()
    return calibrate(fitted, checked, faces_a_person=photos.total() / len(photos))


if __name__ == "__main__":
    sys.exit(main())
