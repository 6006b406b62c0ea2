import os
import subprocess
import sys

import pyarrow as pa
import pytest

SAY = "import pyarrow as pa; import store.schemas; print(pa.default_memory_pool().backend_name)"


def pool(**chosen: str) -> str:
    env = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    done = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, env=env | chosen)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif("jemalloc" not in pa.supported_memory_backends(), reason="pyarrow has no jemalloc here")
def test_tables_lie_in_jemalloc() -> None:
    assert pool() == "jemalloc"


def test_what_the_user_chose_stays() -> None:
    assert pool(ARROW_DEFAULT_MEMORY_POOL="system") == "system"
