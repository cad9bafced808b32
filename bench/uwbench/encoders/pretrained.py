"""Shared code of the transformers families: checked loading and the encoder object that extraction calls.

A family is a function of a ModelFolder and a ModelSpec. It fills an EncoderInfo from config.json and gives two
functions: one builds the model, one turns a batch into frames. `PretrainedEncoder` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from uwbench.encoders.base import Encoded, EncoderInfo, ModelFolder, TextTower
from uwbench.encoders.checkpoint import (
    as_transformers_reads,
    count_parameters,
    extractor_settings,
    identity_of,
    one_line,
    stored_tensors,
    torch_dtype,
    training_data_of,
)
from uwbench.encoders.own_code import fails_as_one_line
from uwbench.errors import EncoderError, UwbenchError

if TYPE_CHECKING:
    import numpy as np
    import torch

_ATTENTION = "uwbench_sdpa"
_SEEDED = ("CohereAsrFeatureExtractor",)  # whose noise follows from the length of the clip

# (model, waveforms, lengths, layers) -> frames; waveforms float32, on the model's device if not a host input.
Forward = Callable[[Any, "torch.Tensor", "torch.Tensor", Sequence[int]], Encoded]


class PretrainedEncoder:
    """An encoder made of a function that builds a model and one that runs it."""

    def __init__(
        self,
        info: EncoderInfo,
        build: Callable[[], Any],
        forward: Forward,
        input_deviation: Callable[[Sequence[np.ndarray]], float] = lambda _: 0.0,
        texts: Callable[[], TextTower] | None = None,
    ) -> None:
        """`input_deviation` compares input features that the family computes itself with the checkpoint's own.

        `texts` opens its text tower; None if the checkpoint has none.
        """
        self.info = info
        self.input_deviation = input_deviation
        self._texts = texts
        self._build = build
        self._forward = forward
        self._model: Any = None

    def load(self, device: str, dtype: str) -> None:
        """Build the model on the CPU and move it to `device` in `dtype`."""
        with fails_as_one_line(self.info.name, "load"):
            self._model = self._build().to(device, torch_dtype(dtype)).eval()

    def text_tower(self) -> TextTower | None:
        """Return the checkpoint's text tower, None if it has none; raise EncoderError if its files are not complete."""
        return None if self._texts is None else self._texts()

    def encode(self, waveforms: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]) -> Encoded:
        """Run the family's forward function."""
        if self._model is None:
            raise EncoderError("encode was called before load", where=self.info.name)
        with fails_as_one_line(self.info.name, "encode"):
            return self._forward(self._model, waveforms, lengths, layers)


def describe(folder: ModelFolder, family: str, *, version: int = 1, **facts: Any) -> EncoderInfo:
    """Return the EncoderInfo of a checkpoint; `facts` are the fields that the family fills in."""
    return EncoderInfo(
        name=folder.name,
        family=family,
        parameters=count_parameters(folder, [""]),
        revision=folder.revision,
        training_data=training_data_of(folder),
        identity={
            "family": family,
            "version": version,
            **identity_of(folder),
        },
        **facts,
    )


def load_pretrained(
    model_class: Any,
    folder: ModelFolder,
    *,
    config: Any = None,
    keys: Mapping[str, str] | None = None,
    code: bool = False,
) -> Any:
    """Return a transformers model of `model_class` in float32; raise EncoderError if weights are missing.

    `keys` maps names in the checkpoint (regular expressions) to the model's. Pickles load with `weights_only=True`.
    """
    options = {} if config is None else {"config": config}
    if keys is not None:
        options["key_mapping"] = dict(keys)
    names = list(stored_tensors(folder))
    leads = ["", *(lead for lead in ("model.", "model.model.") if all(name.startswith(lead) for name in names))]
    lacking: list[str] = []
    for lead in leads:  # "model." is a part of some names, and what training frameworks put before others
        model, lacking_now = _load(model_class, folder, lead, options, code=code)
        if not lacking_now:
            return model
        lacking = lacking or lacking_now
    what = f"the weights lack {', '.join(lacking[:3])} ({len(lacking)} in all); their names begin with {names[0]}"
    raise EncoderError(what, where=folder.path)


def _load(
    model_class: Any, folder: ModelFolder, lead: str, options: Mapping[str, Any], *, code: bool
) -> tuple[Any, list[str]]:
    """Return the model, its weights read without the prefix `lead`, and the names that are missing or do not fit."""
    import pickle

    import torch

    try:
        with quiet(), as_transformers_reads(folder, lead) as path:
            model, report = model_class.from_pretrained(
                path,
                **options,
                trust_remote_code=code,  # left out, transformers would ask on the terminal
                dtype=torch.float32,
                weights_only=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except UwbenchError:
        raise
    except pickle.UnpicklingError as error:
        what, remedy = "the weights hold more than tensors, so they are not loaded", "convert them to safetensors"
        raise EncoderError(what, where=folder.path, remedy=remedy) from error
    except Exception as error:  # transformers and a model's own code raise anything
        raise EncoderError(
            f"cannot be loaded ({type(error).__name__}: {one_line(error)})", where=folder.path
        ) from error
    # Used in training only.
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("masked_spec_embed"))
    return model, missing or [str(key) for key in report["mismatched_keys"]]


def load_extractor(folder: ModelFolder, *, code: bool = False) -> Any:
    """Return a checkpoint's own feature extractor; raise EncoderError if there is none that may be run."""
    from transformers import AutoFeatureExtractor

    try:
        return AutoFeatureExtractor.from_pretrained(folder.path, trust_remote_code=code, local_files_only=True)
    except Exception as error:  # transformers and an extractor's own code raise anything
        where = folder.path / "preprocessor_config.json"
        where = where if where.is_file() else folder.path / "processor_config.json"
        if not code and "auto_map" in (extractor_settings(folder) or {}):
            what, remedy = "names remote code, which is not run for a known family", "restore the family's own file"
            raise EncoderError(what, where=where, remedy=remedy) from error
        remedy = "pip install torchaudio" if "torchaudio" in str(error) else None
        what = f"names no feature extractor that can be loaded ({one_line(error)})"
        raise EncoderError(what, where=where, remedy=remedy) from error


class ClipExtractor:
    """A checkpoint's feature extractor, loaded at first use, which runs on the CPU, clip by clip."""

    def __init__(self, folder: ModelFolder) -> None:
        self._folder = folder
        self._extract: Any = None

    def __call__(self, waveforms: torch.Tensor, lengths: torch.Tensor, **options: Any) -> Any:
        import inspect

        import numpy as np

        if self._extract is None:
            self._extract = _without_noise(load_extractor(self._folder), self._folder)
        clips = [row[:length].numpy() for row, length in zip(waveforms, lengths.tolist(), strict=True)]
        options = {"sampling_rate": self._extract.sampling_rate, "return_tensors": "pt"} | options
        taken = inspect.signature(self._extract).parameters
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in taken.values()):
            options = {name: value for name, value in options.items() if name in taken}  # Granite Speech takes none
        with np.errstate(divide="ignore", invalid="ignore"):  # Speech2Text divides by the deviation of silence
            return self._extract(clips, **options)


def _without_noise(extract: Any, folder: ModelFolder) -> Any:
    """Return a feature extractor; raise EncoderError if its noise differs from call to call."""
    if getattr(extract, "dither", 0) and type(extract).__name__ not in _SEEDED:
        what = "the feature extractor adds noise (dither), so a clip has no one embedding"
        raise EncoderError(what, where=folder.path, remedy="set dither to 0 in its configuration")
    return extract


def required_settings(folder: ModelFolder) -> Mapping[str, Any]:
    """Return the settings of a checkpoint's feature extractor; raise EncoderError if it comes without one."""
    settings = extractor_settings(folder)
    if settings is None:
        what = "has no preprocessor_config.json or processor_config.json, which say how its input is made"
        raise EncoderError(what, where=folder.path, remedy="copy it from the model's page")
    return settings


def default_notes(folder: ModelFolder, defaults: str) -> tuple[str, ...]:
    """Return a note on the defaults that are taken if the checkpoint has no feature extractor."""
    if extractor_settings(folder) is not None:
        return ()
    return (f"{folder.name} has no preprocessor_config.json or processor_config.json: {defaults} are assumed",)


def input_deviation(
    folder: ModelFolder, inputs: Callable[[torch.Tensor], torch.Tensor], clips: Sequence[np.ndarray]
) -> float:
    """Return the largest relative difference between our input features and the checkpoint's own extractor's.

    `inputs` maps a waveform `(1, samples)` to features; it may end before padding does. 0 without an extractor.
    """
    import torch

    if extractor_settings(folder) is None:
        return 0.0
    extract = load_extractor(folder)
    deviations = [0.0]
    for clip in clips:
        features = extract(clip, sampling_rate=extract.sampling_rate, return_tensors="pt")
        expected = next(value for name, value in features.items() if name.startswith("input"))
        actual = inputs(torch.from_numpy(clip)[None])
        expected = expected[..., : actual.shape[-1]]
        deviations.append(float((actual - expected).norm() / expected.norm().clamp(min=1e-12)))
    return max(deviations)


def mask_unasked(model: Any) -> Any:
    """Return a transformers model that masks padded clips without asking the device whether the mask is full.

    transformers asks once per batch, to leave a full mask out; its caller here leaves it out.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def mask(*sizes: Any, attention_mask: Any = None, **options: Any) -> Any:
        options["allow_is_bidirectional_skip"] = attention_mask is None
        return sdpa_mask(*sizes, attention_mask=attention_mask, **options)

    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(_ATTENTION, sdpa_attention_forward)
        AttentionMaskInterface.register(_ATTENTION, mask)
        model.set_attn_implementation(_ATTENTION)
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and its lists of unused heads and decoders."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def pick(states: Sequence[torch.Tensor], last: torch.Tensor, layers: Sequence[int]) -> torch.Tensor:
    """Return `(batch, layers, frames, dim)` from a model's `hidden_states`, with its output as the last layer.

    In transformers, `hidden_states` ends before the final norm in some models (pre-norm wav2vec2, AST) and after it in
    others; the output always includes it.
    """
    import torch

    return torch.stack([last if layer == len(states) - 1 else states[layer] for layer in layers], dim=1)


def layer_names(count: int) -> tuple[str, ...]:
    """Return the names "0" (input of the first block) to "count" (the output)."""
    return tuple(str(index) for index in range(count + 1))
