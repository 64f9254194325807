"""The data directory as the supervisor uses it: whose it is, who uses it now, and the next incarnation.

Owns, in `<data_dir>`: `.lock` (held for the life of `up`), `meta.properties`, `incarnations`, `run.json`, `DISK_FAULT`.
Raises CannotStart, with a message for the operator, if the directory is in use, foreign, or marked after a disk fault.
Invariants: two trees never use one data directory; an incarnation is never given out twice, over restarts of `up` too;
the names of the directory and of those in it are on disk before anything is put there.

    meta.properties   Kafka's format, in `<data_dir>` and in every `broker-<id>` (there with node.id):
                      version=1, cluster.id=<22 characters, base64 of 16 bytes>, node.id=<id>, format=1 (zafka's own)
    incarnations      one decimal number: nothing above it was ever given out
    run.json          {"pid", "run_dir", "control", "cluster"}; there while the tree runs
    DISK_FAULT        text; there after a failed flush of `__cluster`, until `zafka log recover __cluster-0`
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zafka.runtime.errors import CannotStart

FORMAT = "1"
FAULT_NAME = "DISK_FAULT"
LOCK_WAIT_S = 2.0
LOCK_POLL_S = 0.01
INCARNATIONS_BLOCK = 1000
PID_MAX = 2**22
INCARNATION_MAX = 2**62  # it travels as an int64


class DataDirectory:
    """A data directory that this process holds the lock of, and that carries its identity.

    cluster_id: made at the first start, kept for ever.
    """

    def __init__(self, path: Path, *, broker_ids: tuple[int, ...], lock_wait_s: float = LOCK_WAIT_S) -> None:
        self.path = path
        _make_directory(path)
        self._lock = lock_directory(path, lock_wait_s)
        try:
            self._refuse_fault()
            self.cluster_id = self._identify(broker_ids)
            self._last_incarnation = self._reserved = self._read_incarnations()
            self._reserve()
        except OSError as error:
            os.close(self._lock)
            raise CannotStart(f"cannot write in {path}: {error.strerror}") from None
        except BaseException:
            os.close(self._lock)
            raise

    def __repr__(self) -> str:
        return f"<DataDirectory {self.path} cluster={self.cluster_id} incarnation={self._last_incarnation}>"

    # -- incarnations --------------------------------------------------------------------------

    def next_incarnation(self) -> int:
        """A number that no start of any actor ever had. Raises OSError if no more can be reserved on disk.

        Reserved a block at a time, and long before they run out, because a disk may be full for a while.
        """
        if self._last_incarnation + INCARNATIONS_BLOCK // 2 >= self._reserved:
            try:
                self._reserve()
            except OSError:
                if self._last_incarnation >= self._reserved:
                    raise
        self._last_incarnation += 1
        return self._last_incarnation

    def _reserve(self) -> None:
        reserved = self._last_incarnation + INCARNATIONS_BLOCK
        write_durably(self.path / "incarnations", f"{reserved}\n")
        self._reserved = reserved

    def _read_incarnations(self) -> int:
        file = self.path / "incarnations"
        try:
            number = int(file.read_text())
        except FileNotFoundError:
            return 0
        except ValueError:
            number = -1
        if not 0 <= number < INCARNATION_MAX:
            raise CannotStart(
                f"{file} holds no number that can be; write one into it that is above every incarnation in the logs")
        return number

    # -- identity ------------------------------------------------------------------------------

    def _identify(self, broker_ids: tuple[int, ...]) -> str:
        """The cluster id; written down, with the broker ids, where it is not yet."""
        file = self.path / "meta.properties"
        known = read_properties(file)
        if known is None:
            strays = [name for name in os.listdir(self.path) if name == "coordinator" or name.startswith("broker-")]
            if strays:
                raise CannotStart(
                    f"{self.path} holds {', '.join(sorted(strays))} but no meta.properties: "
                    "it is not known whose data that is; bring the file back or use another data_dir")
            known = {"version": "1", "cluster.id": _new_cluster_id(), "format": FORMAT}
            write_durably(file, to_properties(known))
        cluster_id = _check_properties(file, known)
        for broker_id in broker_ids:
            self._identify_broker(broker_id, cluster_id)
        return cluster_id

    def _identify_broker(self, broker_id: int, cluster_id: str) -> None:
        directory = self.path / f"broker-{broker_id}"
        _make_directory(directory)
        file = directory / "meta.properties"
        known = read_properties(file)
        if known is None:
            known = {"version": "1", "cluster.id": cluster_id, "node.id": str(broker_id), "format": FORMAT}
            write_durably(file, to_properties(known))
        if _check_properties(file, known) != cluster_id:
            raise CannotStart(
                f"{directory} belongs to cluster {known['cluster.id']}, and {self.path} to {cluster_id}; "
                "one of them was moved here")
        if known.get("node.id") != str(broker_id):
            raise CannotStart(f"{directory} is the data of broker {known.get('node.id')}, not {broker_id}")

    # -- who runs ------------------------------------------------------------------------------

    def write_run(self, *, run_dir: Path, control: str, cluster: str) -> None:
        """Tell `zafka status` and the like where we are."""
        run = {"pid": os.getpid(), "run_dir": str(run_dir), "control": control, "cluster": cluster}
        try:
            write_atomically(self.path / "run.json", json.dumps(run) + "\n")
        except OSError as error:
            raise CannotStart(f"cannot write in {self.path}: {error.strerror}") from None

    def close(self) -> None:
        """Give the directory back after an orderly end."""
        with contextlib.suppress(OSError):  # of a full disk: numbers are skipped, nothing else
            (self.path / "run.json").unlink(missing_ok=True)
            write_durably(self.path / "incarnations", f"{self._last_incarnation}\n")
        os.close(self._lock)

    # -- disk fault ----------------------------------------------------------------------------

    def mark_fault(self, reason: str) -> None:
        """Leave a word that refuses the next start. The disk is broken: if it cannot be written, so be it."""
        try:
            write_durably(self.path / FAULT_NAME, reason + "\n")
        except OSError as error:
            os.write(2, f"zafka: cannot leave a marker in {self.path}: {error}\n".encode())

    def _refuse_fault(self) -> None:
        marker = self.path / FAULT_NAME
        if marker.exists():
            raise CannotStart(
                f"the disk failed under the cluster's own log: {marker.read_text(errors='replace').strip()}. "
                f"Check the disk under {self.path}, then {way_out(self.path)} and start again")


def way_out(path: Path) -> str:
    """What an operator does once the disk under `__cluster` is trusted again."""
    return f"`zafka log recover __cluster-0 --data-dir {path}`, which removes {path / FAULT_NAME},"


def _make_directory(path: Path) -> None:
    """Make it with all above it, and their names durable: what is inside is lost with any of them."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        for folder in new or [path]:  # it may be new all the same: a kill may have come between
            with contextlib.suppress(PermissionError):
                flush_names(folder.parent)
    except OSError as error:
        raise CannotStart(f"cannot use {path} as data directory: {error.strerror}") from None


def lock_directory(path: Path, wait_s: float) -> int:
    """Lock the directory; a dying owner is waited for. Returns what to close. Raises CannotStart."""
    try:
        lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CannotStart(f"cannot write in {path}: {error.strerror}") from None
    give_up_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() >= give_up_s:
                os.close(lock)
                run = read_run(path)
                owner = f" by process {run['pid']}" if run else ""
                raise CannotStart(
                    f"{path} is in use{owner}; stop that one first, or use another data_dir") from None
        time.sleep(LOCK_POLL_S)


def read_run(path: Path) -> dict[str, Any] | None:
    """What `run.json` says, or None if there is none, or nothing in it that `write_run` wrote."""
    try:
        run: dict[str, Any] = json.loads((path / "run.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    match run:
        case {"pid": int(pid), "control": str(control)} if 0 < pid <= PID_MAX and control.startswith("ipc://"):
            return run
    return None


def _new_cluster_id() -> str:
    """Kafka's form: a URL-safe base64 uuid that no command line takes for an option."""
    text = base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()
    return text if not text.startswith("-") else "A" + text[1:]


def _check_properties(file: Path, known: Mapping[str, str]) -> str:
    """The cluster id in a meta.properties of ours."""
    if "format" not in known:
        raise CannotStart(f"{file} is Apache Kafka's, not zafka's; use another data_dir")
    if known["format"] != FORMAT or known.get("version") != "1":
        raise CannotStart(
            f"{file} says format {known['format']}, this version of zafka writes format {FORMAT}; "
            "use the version that wrote it, or another data_dir")
    if not known.get("cluster.id"):
        raise CannotStart(f"{file} has no cluster.id; bring the file back from a copy")
    return known["cluster.id"]


def read_properties(file: Path) -> dict[str, str] | None:
    """A Java properties file of the simple kind, or None if there is none."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise CannotStart(f"{file} is not text ({error}); bring the file back from a copy") from None
    pairs = (line.partition("=") for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def to_properties(values: Mapping[str, str]) -> str:
    return "".join(f"{key}={value}\n" for key, value in values.items())


def write_atomically(file: Path, text: str) -> None:
    """Readers see the old content or the new one, never a part."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, file)


def write_durably(file: Path, text: str) -> None:
    """The same, and on disk when this returns."""
    temporary = file.with_name(f".{file.name}.tmp")
    with temporary.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, file)
    flush_names(file.parent)


def flush_names(folder: Path) -> None:
    """Make the names in a folder durable."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
