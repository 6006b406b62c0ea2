"""What a fault is: a list of trials, each injected for real, and a twin without the guard that must go red."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.faults.bench import Bench

__all__ = ["Fault"]


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: short, as `--only` takes it.
        title: what goes wrong.
        how: what is done to make it go wrong, one sentence.
        guard: what the twin takes away, one sentence.
        keys: the trials of the long form (True) or the short one (False); a key holds all that decides its trial.
        run: one trial; every invariant that broke, none when all hold.
        twin: a trial without the guard; what the invariants' check says about it, and silence there is a defect.
        state: a digest of all that decides a trial, where trials of different keys may start from the same bytes: such a
            trial is run once and its verdict counts for all of them. None where each is a trial of its own.
        warm: whether trials may start from a process that has built once before (templates compiled, stored rows read). Not
            where a fault strikes a build's calls by their number or moment: those of a first build are then the ones to hit.
    """

    name: str
    title: str
    how: str
    guard: str
    keys: Callable[[Bench, bool], Iterable[str]]
    run: Callable[[Bench, str], list[str]]
    twin: Callable[[Bench], list[str]]
    state: Callable[[Bench, str], str] | None = None
    warm: bool = True
