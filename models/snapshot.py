"""A training's whole state at one step, so that it can go on as if nothing had happened."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

__all__ = ["Checkpoints", "Snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """Tensors by name, contiguous and on the processor, and everything else as what JSON can say."""

    tensors: dict[str, Tensor]
    document: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix` and a dot, by the rest of their names."""
        return {name.removeprefix(f"{prefix}."): t for name, t in self.tensors.items() if name.startswith(f"{prefix}.")}


class Checkpoints(Protocol):
    """Where a training keeps its last snapshot, safe from a process that dies while it is written."""

    def load(self) -> Snapshot | None:
        """The last snapshot that was saved whole, None where there is none."""

    def save(self, snapshot: Snapshot) -> None:
        """Keep this one in place of the last."""
