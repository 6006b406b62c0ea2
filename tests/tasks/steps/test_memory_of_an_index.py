"""What building and asking an index may allocate, in processes that may allocate no more; each with a twin that needs all vectors."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[3]
N, D = 600_000, 64
MIB = 2**20
VECTORS_MIB = 4 * N * D // MIB  # 146

SCRIPT = """
import resource, sys
from pathlib import Path

import faiss
import numpy as np

from benchmarks.face_vectors import FaceVectors
from store.index_choice import IndexBudget
from store.index_file import index_size, load_index
from store.index_search import SearchSettings, search
from store.index_trial import open_mapped
from tasks.steps import choose_index
from tasks.steps.choose_index import build_chosen
from tasks.steps.face_blocks import Gallery

what, folder, spare, faces, dimension = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
faiss.omp_set_num_threads(1)
choose_index._TRIALS = 1  # a scan; exact search does not fit
drawn = FaceVectors(faces, dimension)
queries = drawn.queries(40)


class Blocks:
    ids, dimension = np.arange(faces), dimension

    def blocks(self):
        return drawn.stream()

    def take(self, rows):
        return np.concatenate([vectors[np.isin(ids, rows)] for ids, vectors in drawn.stream()])


def build(them):
    return build_chosen(them, budget=IndexBudget(memory_bytes=4 * len(them.ids) * dimension), queries=lambda: queries, folder=folder)


def held(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))


build(Gallery(np.arange(12_000), drawn.block(0)[1][:12_000]))  # libraries take what they take once
index = build_chosen(Blocks(), budget=IndexBudget(2**40, 10_000), queries=None, folder=folder) if "ask" in what else None
limit = held("VmData") + spare
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
if what == "build in blocks":
    built = build(Blocks())
    print(built.parameters["kind"], built.path.stat().st_size // 2**20)
elif what == "build in memory":
    build(Gallery(Blocks.ids, np.concatenate([vectors for _, vectors in drawn.stream()])))
else:
    opened = open_mapped(str(index.path)) if what == "ask mapped" else load_index(index.path.read_bytes(), where="it")
    print(search(opened, queries, k=10)[1].shape, index.path.stat().st_size // 2**20)
"""


def run(what: str, folder: Path, spare_mib: int) -> tuple[int, str]:
    command = [sys.executable, "-c", SCRIPT, what, str(folder), str(spare_mib * MIB), str(N), str(D)]
    env = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def test_building_an_index_allocates_less_than_its_vectors_and_a_build_that_holds_them_dies_of_the_same_limit(
    tmp_path: Path,
) -> None:
    code, said = run("build in blocks", tmp_path, VECTORS_MIB - 10)
    assert code == 0, said
    assert said.startswith("scan ")
    code, said = run("build in memory", tmp_path, VECTORS_MIB - 10)
    assert code != 0
    assert "MemoryError" in said or "bad_alloc" in said


def test_an_index_larger_than_the_memory_it_is_given_answers_where_it_is_mapped(tmp_path: Path) -> None:
    code, said = run("ask mapped", tmp_path, VECTORS_MIB // 2)
    assert code == 0, said
    assert said == f"(40, 10) {VECTORS_MIB + 5}"
    code, said = run("ask in memory", tmp_path, VECTORS_MIB // 2)
    assert code != 0
    assert "MemoryError" in said or "bad_alloc" in said
