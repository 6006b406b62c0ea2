import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from store.errors import ArtifactError, VersionError
from store.leases import hold_lease, live_leases, storage_now_s
from store.storage import Storage

LEASES = "runs/leases"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


def owners(storage: Storage) -> list[str]:
    return [lease.owner for lease in live_leases(storage)]


def age(storage: Storage, owner: str, seconds: float) -> None:
    """Let the lease look as if it had been written that long ago by the storage's clock."""
    path = Path(storage.uri) / LEASES / f"{owner}.json"
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - seconds))


def test_a_lease_is_live_while_its_block_runs_and_gone_afterwards(storage: Storage) -> None:
    with hold_lease(storage, "one", shards=["b", "a"]), hold_lease(storage, "two", shards=[]):
        assert {lease.owner: lease.shards for lease in live_leases(storage)} == {"one": {"a", "b"}, "two": set()}
    assert owners(storage) == []
    assert storage.names(LEASES) == []


def test_a_lease_ends_with_an_error_too(storage: Storage) -> None:
    with pytest.raises(RuntimeError), hold_lease(storage, "one", shards=[]):
        raise RuntimeError
    assert owners(storage) == []


def test_a_dead_process_s_lease_expires(storage: Storage) -> None:
    code = f"""
        import os
        from store.leases import hold_lease
        from store.storage import Storage
        with hold_lease(Storage({storage.uri!r}), "dead", shards=["a"]):
            os._exit(9)
        """
    project = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=project)
    assert done.returncode == 9
    assert owners(storage) == ["dead"]
    age(storage, "dead", 899)
    assert owners(storage) == ["dead"]
    age(storage, "dead", 2)
    assert owners(storage) == []


def test_a_lease_is_written_again_before_it_expires(storage: Storage) -> None:
    with hold_lease(storage, "one", shards=["a"], expires_s=1.0):
        first = storage.modified_s(f"{LEASES}/one.json")
        until = time.monotonic() + 20
        while storage.modified_s(f"{LEASES}/one.json") == first and time.monotonic() < until:
            time.sleep(0.05)
        assert storage.modified_s(f"{LEASES}/one.json") != first
        assert owners(storage) == ["one"]


@pytest.mark.parametrize("days", [-3, 3])
def test_the_machine_s_own_clock_is_not_asked(storage: Storage, days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold_lease(storage, "one", shards=[]):
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + days * 86_400)
        assert owners(storage) == ["one"]
        age(storage, "one", 901)
        assert owners(storage) == []


def test_the_time_is_the_storage_s(storage: Storage) -> None:
    assert abs(storage_now_s(storage) - time.time()) < 60
    assert storage.names(LEASES) == []


def test_on_s3_the_endpoint_s_clock_counts(s3: str) -> None:
    storage = Storage(f"{s3}/store")
    with hold_lease(storage, "one", shards=["a"]):
        assert owners(storage) == ["one"]
    assert owners(storage) == []
    with hold_lease(storage, "two", shards=["a"], expires_s=-1.0):
        assert owners(storage) == []


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"owner": "x", "shards": 7, "expires_s": 1}', b"\xff"])
def test_a_fresh_lease_that_cannot_be_read_stops_whoever_would_remove(storage: Storage, data: bytes) -> None:
    storage.write(f"{LEASES}/odd.json", data)
    with pytest.raises(ArtifactError, match=r"runs/leases/odd.json is no lease: remove it if nothing runs"):
        live_leases(storage)
    age(storage, "odd", 901)
    assert live_leases(storage) == []


@pytest.mark.parametrize("owner", ["", "../x", "a/b", "a b", "-a", "x" * 101])
def test_an_owner_is_a_plain_name(storage: Storage, owner: str) -> None:
    with pytest.raises(VersionError, match="wanted letters, digits and dashes"), hold_lease(storage, owner, shards=[]):
        pass


def test_what_a_lease_holds_is_plain_json(storage: Storage) -> None:
    with hold_lease(storage, "one", shards=["a"]):
        document = json.loads(storage.read(f"{LEASES}/one.json"))
    assert document == {"format": 1, "owner": "one", "expires_s": 900.0, "shards": ["a"]}
