"""A Prefect server and a worker on this machine, on loopback only, with everything they write in one folder."""

import json
import os
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from app.processes import Started, start, stop
from app.project import PROJECT

__all__ = ["LocalServer", "ServerError", "running_api"]

_STATE = "up.json"
_START_S = 180.0
_STOP_S = 20.0
_WORKER_RUNS = 2
_UNWANTED = ("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING")


class ServerError(Exception):
    """The server or the worker did not start; the message has the end of its log."""


@dataclass(frozen=True)
class _State:
    port: int
    server: Started
    worker: Started | None


class LocalServer:
    """What `lookalike up` starts and `lookalike down` stops.

    Args:
        home: Prefect's home: database, leases, logs, its page's files, caches and temporary files.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()

    @property
    def running(self) -> str | None:
        """The API's url where the server runs."""
        state = self._read()
        return _api(state.port) if state and state.server.alive else None

    def start_server(self, port: int) -> str:
        """Start the server unless it runs, and wait until it answers; returns the API's url.

        Raises:
            ServerError: it ended, or did not answer within three minutes.
        """
        state = self._read()
        if state is None or not state.server.alive:
            for folder in ("tmp", "ui", "cache", "metrics"):
                (self.home / folder).mkdir(parents=True, exist_ok=True)
            log = self.home / "server.log"
            server = start([_command(), "server", "start"], env=self._env(port), folder=self.home, log=log)
            state = _State(port, server, state.worker if state else None)
            self._write(state)
        self._wait_for_answer(state)
        return _api(state.port)

    def start_worker(self) -> None:
        """Start a worker of the pool `cpu` unless it runs, and wait until it has reported.

        Raises:
            ServerError: it ended, or did not report within three minutes.
        """
        state = self._read()
        if state is None or (state.worker and state.worker.alive):
            return
        log = self.home / "worker.log"
        command = [_command(), "worker", "start", "--pool", "cpu", "--name", "here", "--limit", str(_WORKER_RUNS)]
        env = self._env(state.port) | {"PREFECT_API_URL": _api(state.port)}
        worker = start(command, env=env, folder=PROJECT, log=log)
        self._write(_State(state.port, state.server, worker))
        deadline = time.monotonic() + _START_S
        while "started!" not in log.read_text(errors="replace"):
            if not worker.alive or time.monotonic() > deadline:
                raise ServerError(f"the worker did not start: {_tail(log)}")
            time.sleep(0.2)

    def stop(self) -> bool:
        """Stop worker and server; returns whether any of them ran. Runs under way are ended, and go on when started again."""
        state = self._read()
        if state is None:
            return False
        ours = [one for one in (state.worker, state.server) if one is not None]
        ran = any(one.alive for one in ours)
        for one in ours:
            stop(one, patience_s=_STOP_S)
        (self.home / _STATE).unlink(missing_ok=True)
        return ran

    def as_json(self) -> dict[str, object]:
        """Where it is found."""
        state = self._read()
        if state is None:
            return {"home": str(self.home)}
        return {
            "home": str(self.home),
            "ui": f"http://127.0.0.1:{state.port}",
            "api": _api(state.port),
            "server_pid": state.server.pid,
            "worker_pid": state.worker.pid if state.worker else None,
        }

    def _env(self, port: int) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
        env |= {
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(port),  # not --port: the page asks the server where its API is
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_UI_URL": f"http://127.0.0.1:{port}",  # in alerts and log lines
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(self.home / "ui"),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "TMPDIR": str(self.home / "tmp"),
        }
        return {"LOOKALIKE_CACHE": str(self.home / "cache"), "LOOKALIKE_METRICS": str(self.home / "metrics")} | env

    def _wait_for_answer(self, state: _State) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                with urllib.request.urlopen(f"{_api(state.port)}/health", timeout=2):  # noqa: S310
                    break
            except OSError:
                if not state.server.alive or time.monotonic() > deadline:
                    raise ServerError(f"the server did not start: {_tail(self.home / 'server.log')}") from None
                time.sleep(0.3)
        if not state.server.alive:  # somebody else answers on this port
            raise ServerError(f"port {state.port} is taken by another program: {_tail(self.home / 'server.log')}")

    def _read(self) -> _State | None:
        try:
            data = json.loads((self.home / _STATE).read_text())
            worker = data["worker"] and Started(**data["worker"])
            return _State(int(data["port"]), Started(**data["server"]), worker)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _write(self, state: _State) -> None:
        (self.home / _STATE).write_text(json.dumps(asdict(state)))


def running_api(home: Path) -> str | None:
    """The API's url of the server that runs in this home, None where none does."""
    return LocalServer(home).running


def _api(port: int) -> str:
    return f"http://127.0.0.1:{port}/api"


def _command() -> str:
    return str(Path(sys.executable).parent / "prefect")


def _tail(log: Path) -> str:
    return " ".join(log.read_text(errors="replace").split())[-1500:]
