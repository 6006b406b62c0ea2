"""Real processes of the tests here: started, waited for, and ended by their own pid."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

__all__ = ["PROJECT", "postgresql", "program", "run", "run_process_of", "running", "wait_for"]

PROJECT = Path(__file__).resolve().parents[2]
_BIN = Path(sys.executable).parent
_Found = TypeVar("_Found")


def program(name: str) -> str:
    """Where one of the environment's programs lies."""
    return str(_BIN / name)


def run(*command: str, env: Mapping[str, str], seconds: float = 400) -> str:
    """What a program that ends well prints; it runs in the project's root."""
    done = subprocess.run(
        [program(command[0]), *command[1:]], env=env, cwd=PROJECT, capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_for(happens: Callable[[], _Found], *, seconds: float = 60) -> _Found:
    """The first true answer; fails when there is none in so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := happens()):
        assert time.monotonic() < deadline, f"what the test waits for did not happen within {seconds:g} s"
        time.sleep(0.2)
    return found


@contextlib.contextmanager
def running(
    *command: str, env: Mapping[str, str], log: Path, stop: signal.Signals = signal.SIGTERM
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is asked to end with the block; what it wrote is told when the block fails."""
    known = [program(command[0]), *command[1:]]
    with log.open("ab") as out, subprocess.Popen(known, env=env, cwd=PROJECT, stdout=out, stderr=out) as process:
        try:
            yield process
        except BaseException as error:
            error.add_note(f"{' '.join(command)}:\n{log.read_text(errors='replace')[-6000:]}")
            raise
        finally:
            process.send_signal(stop)


@contextlib.contextmanager
def postgresql(port: int, *, user: str, password: str, database: str) -> Iterator[None]:
    """A private PostgreSQL on loopback, passwords asked; it refuses to run as root, so that root runs it as `postgres`."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("postgresql is not installed")
    whose = {"user": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="lookalike-pg-", dir="/tmp"))
    if whose:
        shutil.chown(folder, user="postgres")
    try:
        secret = folder / "password"
        secret.write_text(password)
        secret.chmod(0o644)
        make = [found[-1], "-D", folder / "data", "-U", user, "--auth=scram-sha-256", f"--pwfile={secret}", "-N"]
        subprocess.run(make, check=True, capture_output=True, cwd="/", **whose)
        serve = [found[-1].with_name("postgres"), "-D", folder / "data"]
        for setting in (f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}"):
            serve += ["-c", setting]
        create = [
            "psql",
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            "-U",
            user,
            "-c",
            f"create database {database}",
            "postgres",
        ]
        env = os.environ | {"PGPASSWORD": password}
        out = subprocess.DEVNULL
        with subprocess.Popen(serve, stdout=out, stderr=out, cwd="/", **whose) as server:
            try:
                wait_for(lambda: subprocess.run(create, env=env, capture_output=True).returncode == 0)
                yield
            finally:
                server.send_signal(signal.SIGINT)
    finally:
        shutil.rmtree(folder)


def run_process_of(flow_run: object) -> int:
    """The pid of the process that a worker started for a flow run."""
    family = {pid for pid in _pids() if f"PREFECT__FLOW_RUN_ID={flow_run}".encode() in _read(pid, "environ")}
    (first,) = (pid for pid in family if _parent_of(pid) not in family)
    return first


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def _parent_of(pid: int) -> int:
    return int(_read(pid, "stat").rpartition(b")")[2].split()[1])
