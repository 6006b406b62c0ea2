"""What crosses a task boundary in place of tensors, images and frames."""

from dataclasses import dataclass

__all__ = ["ArtifactRef"]


@dataclass(frozen=True)
class ArtifactRef:
    """Names one stored file and what is known of it.

    Attributes:
        uri: where it lies: an absolute path, or an fsspec url.
        sha256: of its bytes, 64 hex digits.
        rows: how many rows it holds.
    """

    uri: str
    sha256: str
    rows: int
