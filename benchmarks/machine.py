"""The machine and the versions that a figure was taken with."""

import importlib.metadata
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["describe_machine"]

_LIBRARIES = ("torch", "onnxruntime", "openvino", "faiss-cpu", "pillow", "numpy", "prefect", "facenet-pytorch")


def describe_machine() -> dict[str, str]:
    """Processor, cores, system, Python, library versions and the date."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _gpu() -> str:
    """The GPU that torch sees, where a benchmark has loaded torch."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "none"
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
