"""The parent's side of a worker: a process in another interpreter that runs a model's code, none of which is trusted.

Requests and replies are JSON after four bytes of length on two pipes. Samples and frames pass through two files in
memory (`/dev/shm` if there is room) that this side creates and keeps open. Nothing is unpickled, and `out` is read and
not mapped, as a file that shrinks while it is mapped would end this process.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uwbench.base.json_text import parse_json
from uwbench.errors import EncoderError, UsageError, printable

SCRIPT = Path(__file__).with_name("worker.py")
# The script's folder would come first on its path and hide other modules: it is run by this line instead.
_START = "import runpy, sys; del sys.path[0]; runpy.run_path(sys.argv[1], run_name='__main__')"
_LONGEST_REPLY = 16 << 20
_KEPT_OUTPUT = 16 << 10  # bytes of what the model printed last
_LAST_LINES = 3
_ROOM = 2 << 30  # bytes free in /dev/shm to use it
# Variables that point another interpreter at our packages.
_NOT_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
_SECRET = re.compile("TOKEN|SECRET|PASSWORD|CREDENTIAL|_KEY", re.IGNORECASE)  # in names of variables


class WorkerProcess:
    """One worker. Every failure is an EncoderError with the last lines that the worker printed."""

    def __init__(self, name: str, python: str, read_only: Sequence[Path], timeout_s: float) -> None:
        """Start `python`; `read_only` are files and folders that the model's code may not write to."""
        self.name, self.timeout_s = name, timeout_s
        self.hung = False
        self.isolation: dict[str, Any] = {}
        program = interpreter(python)
        self.folder = Path(tempfile.mkdtemp(prefix="uwbench-worker-", dir=_memory_folder()))
        self._files = {name: os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600) for name in ("in", "out")}
        command = [program, "-c", _START, SCRIPT, self.folder, *(path.resolve() for path in read_only)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(),
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            _clean(None, self.folder, self._files.values())
            raise UsageError(f"cannot be run ({error.strerror})", where=f"--python {python}") from error
        self.end = weakref.finalize(self, _clean, self._process, self.folder, self._files.values())
        self._printed = bytearray()
        self._reader = threading.Thread(target=_keep_end, args=(self._process.stderr, self._printed), daemon=True)
        self._reader.start()
        isolation = self._receive("start").get("isolation")
        self.isolation = isolation if isinstance(isolation, dict) else {}

    @property
    def alive(self) -> bool:
        return self.end.alive and self._process.poll() is None

    def ask(self, step: str, **values: Any) -> dict[str, Any]:
        """Send a request and return the reply; raise EncoderError if there is none that makes sense.

        What the model's code raises is an EncoderError that names its line, or MemoryError if it ran out of memory.
        """
        data = json.dumps({"do": step, **values}).encode()
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(struct.pack(">I", len(data)) + data)
        except OSError:
            raise self._ended(step) from None
        try:
            reply = self._receive(step)
        except EncoderError:
            raise
        except BaseException:  # an interrupt: the reply that still comes must not answer the next request
            self.end()
            raise
        error = reply.get("error")
        if not isinstance(error, dict):
            return reply
        text = printable(str(error.get("text")))[:500]
        if error.get("memory") is True and step == "encode":  # batches shrink for it
            raise MemoryError(text)
        if error.get("refused") is True:
            raise EncoderError(text, where=self.name, remedy="see docs/adding-an-encoder.md")
        place = f"{error.get('type')}: {text} ({error.get('line')})"
        raise EncoderError(f"{step} fails with {printable(place)}", where=self.name, remedy=self._hint())

    def send_samples(self, waveforms: np.ndarray, lengths: np.ndarray) -> None:
        """Write float32 `(batch, samples)` and int64 `(batch,)` for the next request."""
        file, place = self._files["in"], 0
        os.ftruncate(file, 0)
        for array in (np.ascontiguousarray(waveforms, np.float32), np.ascontiguousarray(lengths, np.int64)):
            data = array.data.cast("B")
            while data:
                count = os.pwrite(file, data, place)
                data, place = data[count:], place + count

    def read_frames(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the float32 array that the worker wrote; raise EncoderError if it is not of this shape."""
        frames = np.empty(shape, np.float32)
        if os.fstat(self._files["out"]).st_size != frames.nbytes:
            raise self.broken(f"wrote {os.fstat(self._files['out']).st_size:,} bytes for frames of shape {shape}")
        data, place = frames.data.cast("B"), 0
        while data:
            count = os.preadv(self._files["out"], [data], place)
            if count == 0:
                raise self.broken("cut its frames short")
            data, place = data[count:], place + count
        return frames

    def broken(self, what: str) -> EncoderError:
        """End the worker and return the error that says what it did."""
        self.end()
        self._reader.join(timeout=1)
        return EncoderError(f"its worker {what}{self._last_lines()}", where=self.name, remedy=self._hint())

    def _hint(self) -> str | None:
        offline = self.isolation.get("network", "") is None
        return "a worker has no network: download what it needs before" if offline else None

    def _ended(self, step: str) -> EncoderError:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return self.broken(f"closed its end during {step}")
        if code >= 0:
            return self.broken(f"ended with exit code {code} during {step}")
        killed = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
        return self.broken(f"was ended by {signal.Signals(-code).name} during {step}{killed}")

    def _last_lines(self) -> str:
        lines = self._printed.decode("utf-8", "replace").split("\n")
        shown = [printable(" ".join(line.split()))[:200] for line in lines if line.strip()][-_LAST_LINES:]
        return f"; its last lines: {' | '.join(shown)}" if shown else "; it printed nothing"

    def _receive(self, step: str) -> dict[str, Any]:
        until = time.monotonic() + self.timeout_s
        (length,) = struct.unpack(">I", self._read(4, until, step))
        if length > _LONGEST_REPLY:
            raise self.broken(f"sent something that is no reply during {step}")
        try:
            reply = parse_json(self._read(length, until, step), constants=False)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise self.broken(f"sent something that is no reply during {step}")
        return reply

    def _read(self, count: int, until: float, step: str) -> bytes:
        assert self._process.stdout is not None
        handle, data = self._process.stdout.fileno(), bytearray()
        while len(data) < count:
            ready, _, _ = select.select([handle], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                self.hung = True
                raise self.broken(f"did not answer within {self.timeout_s:g} s during {step}")
            block = os.read(handle, count - len(data))
            if not block:
                raise self._ended(step)
            data += block
        return bytes(data)


def interpreter(python: str) -> str:
    """Return the path of an interpreter; raise UsageError if there is none."""
    path = shutil.which(Path(python).expanduser())
    if path is None:
        raise UsageError("is no program that can be run", where=f"--python {python}", remedy="give .../bin/python")
    return str(Path(path).absolute())  # not resolved: a virtual environment's is a link


def describe_isolation(name: str, isolation: Mapping[str, Any]) -> tuple[str, ...]:
    """Return notes on what a worker's isolation lacks."""
    lacks = {"network": "has network access", "weights": "may write to its weights"}
    return tuple(
        f"the worker of {name} {sentence}: this system does not allow to prevent it ({printable(str(reason))})"
        for key, sentence in lacks.items()
        if (reason := isolation.get(key, "not said")) is not None
    )


def _environment() -> dict[str, str]:
    """Return the variables of this process that another interpreter may have."""
    passed_on = {
        key: value for key, value in os.environ.items() if key not in _NOT_PASSED_ON and not _SECRET.search(key)
    }
    return passed_on | {"PYTHONDONTWRITEBYTECODE": "1"}


def _memory_folder() -> str | None:
    """Return /dev/shm if it has room, else None for the usual folder of temporary files."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= _ROOM
    return str(memory) if roomy else None


def _keep_end(stream: Any, printed: bytearray) -> None:
    """Read what the worker prints, however much, and keep its end."""
    while block := stream.read(1 << 16):
        printed += block
        del printed[:-_KEPT_OUTPUT]


def _clean(process: subprocess.Popen[bytes] | None, folder: Path, files: Any) -> None:
    if process is not None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
    for file in files:
        os.close(file)
    shutil.rmtree(folder, ignore_errors=True)
