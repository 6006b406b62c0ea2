"""The contract: everything that decides which faces a photo gives, hashed to the name its shards live under."""

from dataclasses import asdict, dataclass, field
from typing import Any

from models.crop import CropSettings
from models.detection import DetectionSettings
from models.mtcnn.cascade import ALGORITHM_VERSION
from models.photo import PhotoLimits
from store.fingerprints import short_hash

__all__ = ["Contract"]


@dataclass(frozen=True)
class Contract:
    """Detector settings, crop geometry, limits and the algorithm's version; device and runtime are no part of it.

    Attributes:
        detection: how photos are searched for faces, the detector's settings among it.
        crop: the stored crop's geometry and quality.
        limits: what is refused before it is decoded.
    """

    detection: DetectionSettings = field(default_factory=DetectionSettings)
    crop: CropSettings = field(default_factory=CropSettings)
    limits: PhotoLimits = field(default_factory=PhotoLimits)

    @property
    def settings(self) -> dict[str, Any]:
        """What the id is hashed from."""
        return {
            "algorithm_version": ALGORITHM_VERSION,
            "detection": asdict(self.detection),
            "crop": asdict(self.crop),
            "limits": asdict(self.limits),
        }

    @property
    def id(self) -> str:
        """32 hex digits."""
        return short_hash(self.settings)
