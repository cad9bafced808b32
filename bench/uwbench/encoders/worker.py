"""The program that runs an encoder for uwbench in another interpreter.

It needs numpy and the model's own packages, and not uwbench: at its own level it imports only the standard library and
numpy, and it runs on Python 3.8 or later. `uwbench.encoders.worker_process` starts it and says how the two speak.

Requests and replies are JSON after four bytes of length, on what were stdin and stdout; whatever the model prints goes
to stderr. Samples come in the file `in`, float32, followed by each clip's length as int64; frames go to the file
`out`, float32. Before it runs the model's code, it gives up the network and the right to write to the model's files
and packages.
"""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import queue
import shutil
import struct
import sys
import threading
import traceback
import types
from pathlib import Path
from typing import Any

_NOISE_S = (2, 4)
_XARES_FIELDS = ("sampling_rate", "output_dim", "hop_size_in_ms")
_HEAR_FUNCTIONS = ("load_model", "get_timestamp_embeddings", "get_scene_embeddings")


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """As `uwbench.api.ModelSpec`, for encoders written to uwbench's contract."""

    name: str
    weights: str | None = None
    context: str = "full"
    revision: str | None = None
    trust_remote_code: bool = False
    python: str | None = None
    timeout_s: float = 600.0


@dataclasses.dataclass(frozen=True)
class EncoderInfo:
    """As `uwbench.api.EncoderInfo`."""

    name: str
    family: str
    sample_rate: int
    dim: int
    layers: tuple[str, ...]
    hop_s: float
    context_s: float | None
    min_s: float = 0.0
    forward_s: float = 0.0
    batching: str = "padded"
    host_inputs: tuple[str, ...] = ()
    context: str | None = None
    parameters: int | None = None
    revision: str | None = None
    licence: str | None = None
    training_data: tuple[dict[str, Any], ...] | None = None
    notes: tuple[str, ...] = ()
    first_token: bool = False
    runs_own_code: bool = False
    identity: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """As `uwbench.api.Encoded`; frames may be arrays."""

    frames: Any
    valid: Any


class RefusedError(Exception):
    """The model does not follow a contract that is known here."""


def main() -> None:
    """Answer requests until the parent closes its end."""
    exchange = sys.argv[2]
    out, requests = os.dup(1), os.dup(0)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Packages carry weights, too.
    _send(out, {"isolation": isolate([sys.prefix, *sys.argv[3:]])})
    waiting: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_receive, args=(requests, waiting, exchange), daemon=True).start()
    host = Host(exchange)
    while True:
        request = waiting.get()
        try:
            reply = getattr(host, "do_" + request.pop("do"))(**request)
        except Exception as error:  # the model's code may raise anything
            reply = {"error": _described(error)}
        _send(out, reply)


def _receive(source: int, waiting: queue.Queue[dict[str, Any]], exchange: str) -> None:
    """Queue the parent's requests; clean up and end this process when the parent is gone, whatever the model does."""
    with os.fdopen(source, "rb") as file:
        while True:
            head = file.read(4)
            if len(head) < 4:
                shutil.rmtree(exchange, ignore_errors=True)
                os._exit(0)
            waiting.put(json.loads(file.read(struct.unpack(">I", head)[0])))


def _send(out: int, reply: dict[str, Any]) -> None:
    data = json.dumps(reply).encode()
    data = struct.pack(">I", len(data)) + data
    while data:
        data = data[os.write(out, data) :]


def _described(error: Exception) -> dict[str, Any]:
    text = " ".join(str(error).split())
    line = traceback.extract_tb(error.__traceback__)[-1]
    return {
        "type": type(error).__name__,
        "text": text[:500],
        "line": f"{Path(line.filename).name}:{line.lineno}",
        "refused": isinstance(error, RefusedError),
        "memory": isinstance(error, MemoryError) or "out of memory" in text.lower() or "STATUS_ALLOC_FAILED" in text,
    }


def isolate(paths: list[str]) -> dict[str, str | None]:
    """Give up the network and write access to `paths`, for good; return for each the reason if that is not possible.

    This needs user namespaces, which Linux may or may not allow. It runs before any thread is started.
    """
    if not sys.platform.startswith("linux"):
        return dict.fromkeys(("network", "weights"), "only Linux can")
    libc = ctypes.CDLL(None, use_errno=True)
    newns, newuser, newnet = 0x00020000, 0x10000000, 0x40000000
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(newuser | newns | newnet) != 0:
        return dict.fromkeys(("network", "weights"), os.strerror(ctypes.get_errno()))
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            Path("/proc/self", name).write_text(text)
        weights = _read_only(libc, paths)
    except OSError as error:
        weights = os.strerror(error.errno or 0)
    finally:
        _drop_rights(libc)
    return {"network": None, "weights": weights}


def _read_only(libc: Any, paths: list[str]) -> str | None:
    readonly, remount, bind, recursive, private = 1, 32, 4096, 16384, 1 << 18
    if libc.mount(None, b"/", None, recursive | private, None) != 0:
        return os.strerror(ctypes.get_errno())
    for path in map(os.fsencode, paths):
        # Flags that the mount has already may not be dropped: nosuid 2, nodev 4, noexec 8, and three on access times.
        flags = os.statvfs(path).f_flag & (2 | 4 | 8 | 1024 | 2048)
        if libc.mount(path, path, None, bind | recursive, None) != 0:
            return os.strerror(ctypes.get_errno())
        if libc.mount(None, path, None, bind | remount | readonly | flags, None) != 0:
            return os.strerror(ctypes.get_errno())
    return None


def _drop_rights(libc: Any) -> None:
    """Drop the rights that the new namespace gave, so that the model's code cannot undo it."""
    set_no_new_privileges, version_3 = 38, 0x20080522
    libc.prctl(set_no_new_privileges, 1, 0, 0, 0)
    libc.capset((ctypes.c_uint32 * 2)(version_3, 0), (ctypes.c_uint32 * 6)())


class Host:
    """The model in this process, and the files that samples and frames pass through."""

    def __init__(self, exchange: str) -> None:
        self.exchange = exchange
        self.model: Any = None
        self.device = "cpu"

    def do_open(self, kind: str, place: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        """Build the model and return its facts."""
        opened = {"file": open_file, "hear": HearModel, "folder": FolderModel}[kind]
        self.model = opened(place, name, ModelSpec(**spec))
        return {
            "info": _plain(facts(self.model.info)),
            "python": ".".join(map(str, sys.version_info[:3])),
            "packages": packages(),
            "code": getattr(self.model, "code", None),
            "texts": callable(getattr(self.model, "encode_text", None)),
        }

    def do_load(self, device: str, dtype: str) -> dict[str, Any]:
        """Put the model on a device."""
        self.device = device
        self.model.load(device, dtype)
        return {}

    def do_encode(self, shape: list[int], layers: list[int]) -> dict[str, Any]:
        """Encode the samples in the file `in` and write the frames to the file `out`."""
        import numpy as np

        with Path(self.exchange, "in").open("rb") as file:
            waveforms = np.fromfile(file, np.float32, shape[0] * shape[1]).reshape(shape)
            lengths = np.fromfile(file, np.int64, shape[0])
        torch = torch_here()
        if torch is None:
            encoded = self.model.encode(waveforms, lengths, layers)
        else:
            with torch.inference_mode():
                inputs = {"waveforms": torch.from_numpy(waveforms), "lengths": torch.from_numpy(lengths)}
                on_host = self.model.info.host_inputs
                tensors = (t if name in on_host else t.to(self.device) for name, t in inputs.items())
                encoded = self.model.encode(*tensors, layers)
        if not (hasattr(encoded, "frames") and hasattr(encoded, "valid")):
            raise RefusedError(f"encode returns a {type(encoded).__name__}; the contract is Encoded(frames, valid)")
        frames, valid = _array(encoded.frames), _array(encoded.valid)
        if valid.dtype.kind not in "iu":
            raise RefusedError(f"encode returns valid of type {valid.dtype}; the contract is int64 (batch,)")
        with Path(self.exchange, "out").open("r+b") as file:
            np.ascontiguousarray(frames, np.float32).tofile(file)
            file.truncate()
        return {"shape": list(frames.shape), "valid": valid.reshape(-1).tolist()}

    def do_encode_text(self, texts: list[str]) -> dict[str, Any]:
        """Embed texts and write their vectors to the file `out`."""
        import numpy as np

        torch = torch_here()
        if torch is None:
            vectors = _array(self.model.encode_text(texts))
        else:
            with torch.inference_mode():
                vectors = _array(self.model.encode_text(texts))
        with Path(self.exchange, "out").open("r+b") as file:
            np.ascontiguousarray(vectors, np.float32).tofile(file)
            file.truncate()
        return {"shape": list(vectors.shape)}


def facts(info: Any) -> dict[str, Any]:
    """Return the fields of an EncoderInfo that the parent takes; it makes the identity itself."""
    names = [field.name for field in dataclasses.fields(EncoderInfo)]
    return {
        name: getattr(info, name) for name in names if name not in ("host_inputs", "identity", "runs_own_code", "notes")
    }


def torch_here() -> Any:
    """Return torch, or None if this interpreter has none; the model then gets numpy arrays."""
    return importlib.import_module("torch") if importlib.util.find_spec("torch") else None


def packages() -> dict[str, str]:
    """Return the installed packages with their versions."""
    pairs = ((item.metadata["Name"], item.version) for item in importlib.metadata.distributions())
    return {str(name): str(version) for name, version in pairs if name}


def _array(value: Any) -> Any:
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    return np.asarray(value)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=repr))


def open_file(place: str, name: str, spec: ModelSpec) -> Any:
    """Return the class `name` of the file `place`, which follows uwbench's contract or X-ARES's."""
    sys.path.insert(0, str(Path(place).parent))
    _stand_in()
    location = importlib.util.spec_from_file_location("uwbench_own", place)
    if location is None or location.loader is None:
        raise RefusedError("is not a Python file")
    module = importlib.util.module_from_spec(location)
    sys.modules["uwbench_own"] = module
    location.loader.exec_module(module)
    kind = getattr(module, name, None)
    if not isinstance(kind, type):
        raise RefusedError(f"defines no class {name!r}")
    parameters = inspect.signature(kind).parameters.values()
    takes_spec = any(p.default is p.empty and p.kind < p.VAR_POSITIONAL for p in parameters)
    model: Any = kind(spec) if takes_spec else kind()
    if hasattr(model, "info") and hasattr(model, "encode") and hasattr(model, "load"):
        return model
    if all(hasattr(model, field) for field in _XARES_FIELDS) and callable(model):
        return XaresModel(model, name)
    raise RefusedError(f"{name} has neither `info` with load and encode, nor X-ARES's {', '.join(_XARES_FIELDS)}")


def _stand_in() -> None:
    """Let the model's file import the contract from uwbench, which need not be installed here."""
    try:
        if importlib.util.find_spec("uwbench.api") is not None:
            return
    except ImportError:  # there is no uwbench, or a folder of that name
        pass
    names: dict[str, Any] = {"ModelSpec": ModelSpec, "EncoderInfo": EncoderInfo, "Encoded": Encoded, "Encoder": object}
    names["EncoderError"] = names["UsageError"] = names["UwbenchError"] = RefusedError
    for path in ("uwbench", "uwbench.api", "uwbench.errors", "uwbench.encoders", "uwbench.encoders.base"):
        sys.modules[path] = types.ModuleType(path)
        vars(sys.modules[path]).update(names, __path__=[])


class XaresModel:
    """A class in X-ARES's form, called with one clip `(1, samples)`."""

    def __init__(self, model: Any, name: str) -> None:
        self.model = model
        self.info = EncoderInfo(
            name=name,
            family="x-ares",
            sample_rate=int(model.sampling_rate),
            dim=int(model.output_dim),
            layers=("last",),
            hop_s=float(model.hop_size_in_ms) / 1000,
            context_s=None,
            batching="single",
            training_data=getattr(model, "training_data", None),
        )

    def load(self, device: str, dtype: str) -> None:
        _move(self.model, device, dtype)

    def encode(self, waveforms: Any, lengths: Any, layers: list[int]) -> Encoded:
        frames = self.model(waveforms)
        return Encoded(_repeated([frames] * len(layers)), lengths * 0 + frames.shape[1])


class HearModel:
    """A HEAR module: timestamp embeddings, and a layer "scene" if scene embeddings have the same width."""

    def __init__(self, place: str, name: str, spec: ModelSpec) -> None:
        self.module = module = importlib.import_module(place)
        missing = [part for part in _HEAR_FUNCTIONS if not hasattr(module, part)]
        if missing:
            raise RefusedError(f"is no HEAR module: it lacks {', '.join(missing)}")
        self.model = module.load_model(spec.weights) if spec.weights else module.load_model()
        self.code = _sources(module)
        dim, rate = int(self.model.timestamp_embedding_size), int(self.model.sample_rate)
        layers = ("scene", "timestamp") if int(self.model.scene_embedding_size) == dim else ("timestamp",)
        self.info = EncoderInfo(
            name=name,
            family="hear",
            sample_rate=rate,
            dim=dim,
            layers=layers,
            hop_s=self._hop(rate),
            context_s=None,
            min_s=0.1,
            batching="equal-length",
            training_data=getattr(module, "training_data", None),
        )

    def _hop(self, rate: int) -> float:
        _, times = self.module.get_timestamp_embeddings(_noise(3 * rate), self.model)
        times = _array(times)[0]
        if len(times) < 2:
            raise RefusedError("returns one timestamp for three seconds")
        return float((times[-1] - times[0]) / (len(times) - 1)) / 1000

    def load(self, device: str, dtype: str) -> None:
        _move(self.model, device, dtype)

    def encode(self, waveforms: Any, lengths: Any, layers: list[int]) -> Encoded:
        frames, _ = self.module.get_timestamp_embeddings(waveforms, self.model)
        states = [frames] * len(layers)
        if any(self.info.layers[layer] == "scene" for layer in layers):
            scene = self.module.get_scene_embeddings(waveforms, self.model)[:, None] + 0 * frames
            states = [scene if self.info.layers[layer] == "scene" else frames for layer in layers]
        return Encoded(_repeated(states), lengths * 0 + frames.shape[1])


class FolderModel:
    """A checkpoint in Hugging Face format through transformers' `AutoModel`, with measured facts, clip by clip."""

    def __init__(self, place: str, name: str, spec: ModelSpec) -> None:
        from transformers import AutoModel

        torch = importlib.import_module("torch")
        trust = {"trust_remote_code": spec.trust_remote_code, "local_files_only": True}
        names = ("preprocessor_config.json", "processor_config.json", "feature_extractor_config.json")
        self.extract: Any = None
        if any(Path(place, file).is_file() for file in names):
            from transformers import AutoFeatureExtractor

            self.extract = AutoFeatureExtractor.from_pretrained(place, **trust)
        self.model = AutoModel.from_pretrained(place, **trust).to(torch.float32).eval()
        config = self.model.config
        self.rate = int(getattr(self.extract, "sampling_rate", None) or getattr(config, "sampling_rate", None) or 16000)
        counts: list[int] = []
        states: list[Any] = []
        for seconds in _NOISE_S:
            states = self._states(_noise(seconds * self.rate))
            counts.append(states[-1].shape[1])
        if counts[1] <= counts[0]:
            raise RefusedError(
                f"returns {counts[0]} frames for 2 s, {counts[1]} for 4 s: valid frames cannot be counted"
            )
        self.info = EncoderInfo(
            name=name,
            family=str(config.model_type),
            sample_rate=self.rate,
            dim=int(states[-1].shape[2]),
            layers=tuple(map(str, range(len(states)))),
            hop_s=(_NOISE_S[1] - _NOISE_S[0]) / (counts[1] - counts[0]),
            context_s=None,
            min_s=0.1,
            batching="single",
            parameters=sum(p.numel() for p in self.model.parameters()),
        )

    def load(self, device: str, dtype: str) -> None:
        _move(self.model, device, dtype)

    def _states(self, waveform: Any) -> list[Any]:
        """Return the hidden states and the output, each `(1, frames, dim)`, of one clip `(1, samples)`."""
        torch = importlib.import_module("torch")
        inputs = {"input_values": waveform}
        if self.extract is not None:
            array = waveform[0].cpu().numpy()
            inputs = dict(self.extract(array, sampling_rate=self.rate, return_tensors="pt"))
        device = next(self.model.parameters()).device
        parameters = inspect.signature(self.model.forward).parameters.values()
        wants = any(p.name == "output_hidden_states" or p.kind == p.VAR_KEYWORD for p in parameters)
        with torch.inference_mode():
            moved = {key: value.to(device) for key, value in inputs.items()}
            output = self.model(**moved, **({"output_hidden_states": True} if wants else {}))
        last, states = getattr(output, "last_hidden_state", None), getattr(output, "hidden_states", None)
        if last is None and hasattr(states, "ndim"):
            last, states = states, None  # Dasheng names its output hidden_states
        if last is None or last.ndim != 3:
            raise RefusedError("returns no frames as last_hidden_state")
        stackable = states is not None and all(state.shape == last.shape for state in states)
        return [*states[:-1], last] if states and stackable else [last]

    def encode(self, waveforms: Any, lengths: Any, layers: list[int]) -> Encoded:
        states = self._states(waveforms)
        return Encoded(_repeated([states[layer] for layer in layers]), lengths * 0 + states[-1].shape[1])


def _move(model: Any, device: str, dtype: str) -> None:
    if dtype != "fp32":
        raise RefusedError("runs in fp32 only; drop --dtype")
    if hasattr(model, "to") and hasattr(model, "eval"):
        model.to(device).eval()


def _repeated(states: list[Any]) -> Any:
    """Return states `(batch, frames, dim)`, one per layer, as `(batch, layers, frames, dim)`."""
    import numpy as np

    if hasattr(states[0], "detach"):
        return importlib.import_module("torch").stack(states, 1)
    return np.stack(states, 1)


def _noise(samples: int) -> Any:
    import numpy as np

    noise = 0.1 * np.random.default_rng(0).standard_normal((1, samples)).astype(np.float32)
    torch = torch_here()
    return noise if torch is None else torch.from_numpy(noise)


def _sources(module: Any) -> dict[str, str]:
    """Return the sha256 of each file of the package that a module is in, or of the module alone."""
    root = importlib.import_module(module.__name__.partition(".")[0])
    start = Path(next(iter(getattr(root, "__path__", [])), Path(module.__file__).parent))
    files = start.rglob("*.py") if hasattr(root, "__path__") else [Path(module.__file__)]
    return {file.relative_to(start).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


if __name__ == "__main__":
    main()
