"""Weights as people save them: wrapped, nested, in a variant, beside an adapter. Read as they are meant, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from encoders.families import CASES
from uwbench.encoders.base import ModelSpec
from uwbench.encoders.checkpoint import download, weight_files
from uwbench.encoders.resolve import open_encoder
from uwbench.errors import EncoderError

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model that transformers loads, with a head whose prefix it drops, and one that is read tensor by tensor."""
    folders = {}
    for name in ("wav2vec2-padded", "qwen2_audio"):
        folders[name] = tmp_path_factory.mktemp("models") / name
        next(case for case in CASES if case.name == name).make(folders[name])
    return folders


@pytest.fixture(params=["wav2vec2-padded", "qwen2_audio"])
def original(request: pytest.FixtureRequest, originals: dict[str, Path]) -> Path:
    return originals[request.param]


def frames(folder: Path) -> torch.Tensor:
    encoder = open_encoder(ModelSpec(str(folder)))
    encoder.load("cpu", "fp32")
    waveforms = 0.1 * torch.randn(1, 6400, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return encoder.encode(waveforms, torch.tensor([6400]), range(len(encoder.info.layers))).frames


def resaved(original: Path, folder: Path, save: Callable[[Tensors, Path], object]) -> Path:
    """Copy a model without its weights, and save those with `save(tensors, folder)`."""
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    save(load_file(original / "model.safetensors"), folder)
    return folder


def plain(tensors: Tensors, folder: Path) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def pickled(content: object, folder: Path, name: str = "pytorch_model.bin") -> None:
    torch.save(content, folder / name)


WRAPPINGS: dict[str, Callable[[str], str]] = {
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "data parallel": lambda name: f"module.{name}",
    "compiled inside data parallel": lambda name: f"module._orig_mod.{name}",
    "data parallel inside compiled": lambda name: f"_orig_mod.module.{name}",
    "a compiled part": lambda name: name.replace(".layers.", "._orig_mod.layers."),
    "FSDP": lambda name: f"_fsdp_wrapped_module.{name.replace('.layers.', '.layers._fsdp_wrapped_module.')}",
    "an attribute of a training framework": lambda name: f"model.{name}",
    "that attribute, compiled": lambda name: f"model._orig_mod.{name}",
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_prefixes_of_wrappers_are_undone(wrapping: str, original: Path, tmp_path: Path) -> None:
    def save(tensors: Tensors, folder: Path) -> None:
        plain({WRAPPINGS[wrapping](name): value for name, value in tensors.items()}, folder)

    folder = resaved(original, tmp_path / "wrapped", save)
    torch.testing.assert_close(frames(folder), frames(original), rtol=0, atol=0)
    assert open_encoder(ModelSpec(str(folder))).info.parameters


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "module"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_weights_nested_in_a_checkpoint_are_found(key: str, prefix: str, original: Path, tmp_path: Path) -> None:
    def save(tensors: Tensors, folder: Path) -> None:
        pickled({"epoch": 3, key: {prefix + name: value for name, value in tensors.items()}}, folder)

    folder = resaved(original, tmp_path / "nested", save)
    torch.testing.assert_close(frames(folder), frames(original), rtol=0, atol=0)


def sharded_variant(tensors: Tensors, folder: Path) -> None:
    names = sorted(tensors)
    files = {"model.fp16-00001-of-00002.safetensors": names[::2], "model.fp16-00002-of-00002.safetensors": names[1::2]}
    for file, part in files.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in files.items() for name in part}}
    (folder / "model.safetensors.index.fp16.json").write_text(json.dumps(index))


VARIANTS: dict[str, Callable[[Tensors, Path], object]] = {
    "safetensors": lambda tensors, folder: save_file(tensors, folder / "model.fp16.safetensors"),
    "pickle": lambda tensors, folder: pickled(tensors, folder, "pytorch_model.fp16.bin"),
    "shards": sharded_variant,
}


@pytest.mark.parametrize("form", VARIANTS)
def test_a_variant_is_found_if_it_is_the_only_one(form: str, original: Path, tmp_path: Path) -> None:
    def save(tensors: Tensors, folder: Path) -> None:
        VARIANTS[form]({name: value.half() for name, value in tensors.items()}, folder)

    folder = resaved(original, tmp_path / "half", save)
    expected = frames(original)
    assert float((frames(folder) - expected).norm() / expected.norm()) < 1e-2


def test_the_plain_weights_come_before_a_variant_and_two_variants_are_ambiguous(original: Path, tmp_path: Path) -> None:
    folder = resaved(original, tmp_path / "both", plain)
    VARIANTS["safetensors"]({"other": torch.zeros(1)}, folder)
    torch.testing.assert_close(frames(folder), frames(original), rtol=0, atol=0)
    (folder / "model.safetensors").rename(folder / "model.bf16.safetensors")
    with pytest.raises(EncoderError, match=r"several variants \(model\.bf16\.safetensors, model\.fp16\.safetensors\)"):
        open_encoder(ModelSpec(str(folder)))


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "model.fp16.safetensors"])
def test_weights_on_the_hub_are_found_in_every_form(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(hub_id: str, *, allow_patterns: list[str], **_: object) -> str:
        for name in ("config.json", file):
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (tmp_path / name).write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert weight_files(download("owner/model", None)) == [tmp_path / file]


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
def test_an_adapter_is_never_scored_as_its_base(file: str, beside: bool, original: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    if beside:
        shutil.copytree(original, folder)
    else:
        folder.mkdir()
    (folder / file).write_text('{"peft_type": "LORA", "base_model_name_or_path": "x"}')
    with pytest.raises(EncoderError, match=rf"adapter: holds a PEFT adapter \({file}\).*merge_and_unload"):
        open_encoder(ModelSpec(str(folder)))


@pytest.mark.parametrize("name", ["q_proj.lora_A.default.weight", "q_proj.lora_B", "q_proj.base_layer.weight"])
def test_weights_with_an_adapter_that_was_not_merged_are_refused(name: str, original: Path, tmp_path: Path) -> None:
    folder = resaved(
        original, tmp_path / "adapted", lambda tensors, to: plain({**tensors, f"layer.{name}": torch.ones(2)}, to)
    )
    with pytest.raises(EncoderError, match=rf"adapted: holds a PEFT adapter \(layer\.{name}\)"):
        open_encoder(ModelSpec(str(folder)))  # before cached vectors could be used


def renamed(tensors: Tensors, folder: Path) -> None:
    plain({f"backbone.{name}": value for name, value in tensors.items()}, folder)


def narrowed(tensors: Tensors, folder: Path) -> None:
    plain({name: value[: len(value) // 2].clone() for name, value in tensors.items()}, folder)


UNREADABLE: dict[str, tuple[Callable[[Tensors, Path], object], str]] = {
    "an unknown prefix": (renamed, "backbone"),
    "another size": (narrowed, "config.json|lack|cannot be loaded"),
    "no tensors": (lambda _, folder: pickled({"epoch": 3, "weights": {}}, folder), r"no dictionary of tensors.*epoch"),
    "another file": (lambda tensors, folder: pickled(tensors, folder, "last.ckpt"), r"no weights .*last\.ckpt"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_one_readable_line(case: str, original: Path, tmp_path: Path) -> None:
    save, message = UNREADABLE[case]
    folder = resaved(original, tmp_path / "model", save)
    with pytest.raises(EncoderError, match=message) as refused:
        open_encoder(ModelSpec(str(folder))).load("cpu", "fp32")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600
