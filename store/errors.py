"""What can go wrong, as a tree; every message says where, what it got, what it wanted and what to do.

LookalikeError
├── SourceError      photos cannot be listed: missing, empty, or none of them a photo
│   └── EmptySourceError  there is nothing there, or no photo among it
├── UnreadableError  one photo cannot be fetched; the message is the reason in its row
├── UnavailableError S3 does not answer, or not whole, in all tries; the same call may succeed later
├── StoreError       the store cannot be used: not writable, or not a store
│   ├── RefusedError     S3 refuses a request: no such bucket, no permission, credentials that it does not know
│   ├── ArtifactError    a file of the store is missing, or is not what its hash says
│   └── ManifestError    a manifest cannot be read; carries every problem found
├── VersionError     the version asked for does not exist, or cannot be published
│   └── GateRefusedError  its index finds too few of the nearest faces
├── EncoderUnknownError  no such encoder, or its weights are not here
└── QueryError       the picture asked with is not an image, or shows no face
"""

__all__ = [
    "ArtifactError",
    "EmptySourceError",
    "EncoderUnknownError",
    "GateRefusedError",
    "LookalikeError",
    "ManifestError",
    "QueryError",
    "RefusedError",
    "SourceError",
    "StoreError",
    "UnavailableError",
    "UnreadableError",
    "VersionError",
]


class LookalikeError(Exception):
    """Any refusal of lookalike's own; its text is one sentence for the user."""


class SourceError(LookalikeError):
    """Photos cannot be listed."""


class EmptySourceError(SourceError):
    """A source could be looked at and holds no photo: an inbox before the first one arrives, or a disk that is not mounted."""


class UnreadableError(LookalikeError):
    """One photo cannot be fetched."""


class UnavailableError(LookalikeError):
    """S3 does not answer, or not whole, in all tries; the same call may succeed later."""


class StoreError(LookalikeError):
    """The store cannot be used."""


class RefusedError(StoreError):
    """S3 refuses a request that will not succeed later either."""


class ArtifactError(StoreError):
    """A file of the store is missing, or is not what its hash says."""


class ManifestError(StoreError):
    """A manifest cannot be read; the message names every problem."""


class VersionError(LookalikeError):
    """The version asked for does not exist, or cannot be published."""


class GateRefusedError(VersionError):
    """A version's index finds too few of the nearest faces; the old version stays.

    Attributes:
        recall_at_10: that was measured.
        key: what the index is.
    """

    def __init__(self, sentence: str, *, recall_at_10: float = 0.0, key: str = "") -> None:
        super().__init__(sentence)
        self.recall_at_10 = recall_at_10
        self.key = key


class EncoderUnknownError(LookalikeError):
    """No such encoder, or its weights are not here."""


class QueryError(LookalikeError):
    """The picture asked with is not an image, or shows no face."""
