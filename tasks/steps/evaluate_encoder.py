"""Evaluate an encoder: are two photos of one person, and who is the nearest? From crops and embeddings of the store.

N pairs.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import numpy as np
import numpy.typing as npt

from models.folds import stratified_folds
from models.retrieval import Retrieval, measure_retrieval
from models.roc import Roc, roc_curve
from models.tar_at_far import tar_at_far
from models.verification import CrossValidation, cross_validate
from store.errors import LookalikeError
from store.layout import open_store
from store.refs import ArtifactRef
from tasks.steps.children import again_after_death, children, run_in_child
from tasks.steps.contract import Contract
from tasks.steps.embed_faces import embed_faces
from tasks.steps.evaluation import Curve, Evaluation, Histogram, Uncovered, WrongPair
from tasks.steps.find_faces import FoundFaces, find_faces, shard_of
from tasks.steps.named_faces import MainFace, NamedFaces
from tasks.steps.plan_evaluation import EvaluationPlan, discard_evaluation, plan_evaluation, read_plan
from tasks.steps.progress import Stages, report
from tasks.steps.resolve_encoder import EncoderRef, resolve_encoder
from tasks.steps.wall import run_behind_wall

__all__ = ["FARS", "FOLDS", "evaluate_encoder", "measure_encoder"]

FARS = (1e-1, 1e-2, 1e-3, 1e-4)
FOLDS = 10
FOLD_SEED = 0
_BINS = 50
_CURVE_POINTS = 300
_WRONG = 24
_RETRIES = 3

Row = dict[str, Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def evaluate_encoder(
    pairs: str,
    *,
    images: str,
    store: str,
    encoder: str | None = None,
    exclude_people: str | None = None,
    workers: int = 1,
    device: str = "cpu",
) -> tuple[Evaluation, dict[str, float]]:
    """Do all an evaluation needs, without Prefect: plan, find faces and embed them in supervised children, measure.

    Shards are committed as a build commits them; what is stored already is not computed again, so another encoder reads
    no photo and the same one embeds none.

    Args:
        pairs: path or url of the pairs file.
        images: the folder that its names are relative to.
        store: the store's uri; made when it is missing.
        encoder: as for a build.
        exclude_people: a list of people; pairs that show one of them are left out.
        workers: children.
        device: of the nets, "cpu" or "cuda".

    Returns:
        The figures, and the seconds of each stage.

    Raises:
        LookalikeError: the pairs, the photos, the store or the encoder cannot be used; the message says what to do.
    """
    stages, contract = Stages(), Contract()
    with stages.stage("list"):
        embedder = resolve_encoder(encoder, store=store)
        plan = plan_evaluation(
            pairs, images=images, store=store, contract=contract, encoder=embedder.id, exclude_people=exclude_people
        )
    with children(workers):
        with stages.stage("align"):
            calls = [_finding(ref, store=store, contract=contract, device=device) for ref in plan.requests]
            found = _in_threads("align", calls, workers=workers)
        shards = [*found, *(FoundFaces(shard=ref, computed=False) for ref in plan.kept)]
        missing = [shard for shard in shards if shard_of(shard.shard) not in plan.embedded]
        with stages.stage("embed"):
            embeds = [_embedding(s, store=store, contract=contract, encoder=embedder, device=device) for s in missing]
            _in_threads("embed", embeds, workers=workers)
    with stages.stage("measure"):
        evaluation = measure_encoder(plan, store=store, contract=contract, encoder=embedder)
    discard_evaluation(plan, store=store)
    return evaluation, stages.seconds()


def measure_encoder(plan: EvaluationPlan, *, store: str, contract: Contract, encoder: EncoderRef) -> Evaluation:
    """Measure an encoder on a plan whose shards are committed and embedded.

    Args:
        plan: of the evaluation.
        store: its uri.
        contract: of the shards.
        encoder: its embeddings are measured.

    Raises:
        LookalikeError: too few pairs of a kind to measure anything.
    """
    storage = open_store(store)
    rows, planned = read_plan(plan, storage=storage)
    faces = NamedFaces(storage, contract=contract.id, encoder=encoder)
    faces.read({str(row["uri"]): str(row["shard"]) for row in planned})
    same_N = np.array([row["same"] for row in rows], bool)
    folds_N, folds_from = _folds(rows, same_N)
    scores_N, covered_N = faces.scores(rows)
    folds = cross_validate(scores_N, same_N, folds_N)
    curve = roc_curve(scores_N, same_N)
    retrieval, reason = _retrieval(faces, rows, unknown=plan.people_unknown)
    wrong_pairs, wrong = _wrong(rows, scores_N, same_N, covered_N, _thresholds(folds, folds_N), faces)
    people = {row[f"{side}_person"] for row in rows for side in ("first", "second")}
    return Evaluation(
        images=plan.images,
        pairs_file=plan.pairs_file,
        format=plan.format,
        exclusion=plan.exclusion,
        encoder=encoder.id,
        encoder_name=encoder.name,
        pairs=len(rows),
        same=int(same_N.sum()),
        covered=int(covered_N.sum()),
        uncovered=_uncovered(rows, faces),
        photos=_photo_counts(rows, faces),
        several_faces=faces.several,
        people=None if plan.people_unknown else len(people),
        folds_from=folds_from,
        folds=folds,
        accuracy_covered=_covered_accuracy(scores_N, same_N, folds_N, covered_N),
        auc=curve.auc,
        equal_error=curve.equal_error,
        tar_at_far=tuple(tar_at_far(scores_N, same_N, fars=FARS)),
        retrieval=retrieval,
        retrieval_reason=reason,
        curve=_points(curve),
        histogram=_histogram(scores_N[covered_N], same_N[covered_N]),
        wrong=wrong,
        wrong_pairs=wrong_pairs,
    )


def _finding(ref: ArtifactRef, *, store: str, contract: Contract, device: str) -> Callable[[], FoundFaces]:
    return lambda: run_behind_wall(find_faces, ref, store=store, contract=contract, device=device)


def _embedding(
    found: FoundFaces, *, store: str, contract: Contract, encoder: EncoderRef, device: str
) -> Callable[[], Any]:
    return lambda: run_in_child(embed_faces, found, store=store, contract=contract.id, encoder=encoder, device=device)


def _in_threads(stage: str, calls: list[Callable[[], Any]], *, workers: int) -> list[Any]:
    """The calls' results in their order, each waited for by a thread and tried again if its child died.

    After a failure no further call is begun.
    """
    report(stage, 0, len(calls))
    threads = ThreadPoolExecutor(workers)
    try:
        futures = [threads.submit(again_after_death, call, retries=_RETRIES) for call in calls]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            report(stage, done, len(calls))
        return [future.result() for future in futures]
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _folds(rows: list[Row], same_N: Bools) -> tuple[npt.NDArray[np.int64], str]:
    """The file's folds, or ten of our own cutting; fewer where a kind has not ten pairs."""
    alike, unlike = int(same_N.sum()), int((~same_N).sum())
    if min(alike, unlike) < 2:
        raise LookalikeError(
            f"there are {alike} pairs of one person and {unlike} of two: wanted at least 2 of each to measure anything"
        )
    if rows[0]["fold"] is None:
        return stratified_folds(same_N, folds=min(FOLDS, alike, unlike), seed=FOLD_SEED), "cut"
    folds_N = np.array([row["fold"] for row in rows], np.int64)
    if len(np.unique(folds_N)) < 2:
        raise LookalikeError(f"all pairs are in fold {folds_N[0]}: wanted at least two folds, or a file without them")
    return folds_N, "file"


def _thresholds(folds: CrossValidation, folds_N: npt.NDArray[np.int64]) -> Floats:
    """The threshold that each pair is tested with."""
    of_fold = {fold.fold: fold.threshold for fold in folds.folds}
    return np.array([of_fold[int(fold)] for fold in folds_N])


def _covered_accuracy(
    scores_N: Floats, same_N: Bools, folds_N: npt.NDArray[np.int64], covered_N: Bools
) -> float | None:
    if len(np.unique(folds_N[covered_N])) < 2:
        return None
    return cross_validate(scores_N[covered_N], same_N[covered_N], folds_N[covered_N]).mean


def _uncovered(rows: list[Row], faces: NamedFaces) -> tuple[Uncovered, ...]:
    """Why pairs have not two faces, commonest first; reasons that differ in numbers are one."""
    photos: dict[tuple[str, str], set[str]] = {}
    pairs: Counter[tuple[str, str]] = Counter()
    for row in rows:
        kinds = set()
        for side in ("first", "second"):
            if (why := faces.why_none(row[f"{side}_uri"])) is not None:
                kind = (why[0], re.sub(r"\d[\d.]*", "N", why[1]))
                photos.setdefault(kind, set()).add(row[side])
                kinds.add(kind)
        pairs.update(kinds)
    return tuple(Uncovered(*kind, photos=len(photos[kind]), pairs=n) for kind, n in pairs.most_common())


def _photo_counts(rows: list[Row], faces: NamedFaces) -> dict[str, int]:
    """Named photos by status; they add up."""
    uri_of = {row[side]: row[f"{side}_uri"] for row in rows for side in ("first", "second")}
    counts = Counter("missing" if uri is None else faces.status[uri][0] for uri in uri_of.values())
    if sum(counts.values()) != len(uri_of):
        raise LookalikeError(f"the evaluation lost photos: {len(uri_of)} named, {sum(counts.values())} counted")
    return {"named": len(uri_of), **dict(sorted(counts.items()))}


def _retrieval(faces: NamedFaces, rows: list[Row], *, unknown: str | None) -> tuple[Retrieval | None, str | None]:
    """Retrieval among the named photos, equal bytes once; or the reason why it is not measured."""
    if unknown is not None:
        return None, f"nobody knows who the photos show: {unknown}"
    person_of = {row[f"{side}_uri"]: row[f"{side}_person"] for row in rows for side in ("first", "second")}
    once = {faces.main[uri].photo_sha256: uri for uri in sorted(faces.main, reverse=True)}
    uris = sorted(once.values())
    labels = [person_of[uri] for uri in uris]
    counts = Counter(labels)
    if len(counts) < 2 or max(counts.values()) < 2:
        return None, f"{len(uris)} photos with a face show {len(counts)} people: wanted two people, one with two photos"
    return measure_retrieval(faces.emb_FD[[faces.row_of(uri) for uri in uris]], labels), None


def _wrong(
    rows: list[Row], scores_N: Floats, same_N: Bools, covered_N: Bools, thresholds_N: Floats, faces: NamedFaces
) -> tuple[int, tuple[WrongPair, ...]]:
    """How many covered pairs are told wrongly, and those furthest beyond their fold's threshold."""
    wrong_N = covered_N & ((scores_N >= thresholds_N) != same_N)
    beyond_N = np.abs(scores_N - thresholds_N)
    worst = sorted(np.flatnonzero(wrong_N).tolist(), key=lambda n: (-beyond_N[n], n))[:_WRONG]
    shown = [
        WrongPair(
            first=rows[n]["first"],
            second=rows[n]["second"],
            same=bool(same_N[n]),
            cosine=float(scores_N[n]),
            threshold=float(thresholds_N[n]),
            faces=(_place(faces.main[rows[n]["first_uri"]]), _place(faces.main[rows[n]["second_uri"]])),
        )
        for n in worst
    ]
    return int(wrong_N.sum()), tuple(shown)


def _place(face: MainFace) -> tuple[str, int]:
    return face.shard, face.face_id


def _points(curve: Roc) -> Curve:
    thin = curve.thinned(_CURVE_POINTS)
    return Curve(far=_rounded(thin.far), tar=_rounded(thin.tar))


def _histogram(scores_N: Floats, same_N: Bools) -> Histogram:
    low = float(np.floor(scores_N.min() * 20) / 20) if len(scores_N) else -1.0
    edges = np.linspace(low, 1.0, _BINS + 1)
    same, different = (np.histogram(scores_N[kind], edges)[0] for kind in (same_N, ~same_N))
    return Histogram(edges=_rounded(edges), same=tuple(same.tolist()), different=tuple(different.tolist()))


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
