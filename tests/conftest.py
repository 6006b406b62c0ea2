import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photos and weights, named by LOOKALIKE_TEST_DATA."""
    folder = os.environ.get("LOOKALIKE_TEST_DATA")
    if not folder:
        pytest.skip("LOOKALIKE_TEST_DATA names no folder with real photos")
    return Path(folder).resolve()
