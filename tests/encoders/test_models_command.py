"""`uwbench models`: the list, one in full, and the check on a task's audio."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from uwbench.encoders.catalogue import CATALOGUE

Command = Callable[..., Any]
BROKEN = """
import torch


class TenNotTwenty(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.sampling_rate, self.output_dim, self.hop_size_in_ms = 16000, 4, 10

    def forward(self, audio):
        return audio[:, : audio.shape[1] // 320 * 320].unflatten(1, (-1, 320))[..., :4]
"""


def test_the_check_takes_a_tasks_audio_and_says_which(uwbench: Command, whisper_tiny: Path, shared_data: Path) -> None:
    manifest = str(shared_data / "esc10" / "manifest.csv")
    done = uwbench("models", "check", str(whisper_tiny), "--context", "trimmed", "-t", manifest)
    assert done.code == 0, done.err
    assert "4 clips of esc10 (manifest " in done.out
    assert "20 ms (20 ms declared)" in done.out
    assert "no problem found" in done.out
    found = json.loads(uwbench("models", "check", str(whisper_tiny), "-t", manifest, "--json").out)
    wanted = {"model", "hop_seconds", "batch_deviation", "deterministic", "clips_per_second", "problems", "audio"}
    assert set(found) == wanted
    assert found["hop_seconds"] == pytest.approx(0.02)
    assert found["deterministic"] is True
    assert found["problems"] == []
    assert found["batch_deviation"] < 1e-4


def test_without_a_task_the_audio_is_generated_and_that_is_said(uwbench: Command) -> None:
    done = uwbench("models", "check", "logmel")
    assert done.code == 0
    assert "4 generated sounds of mini_sound; give --task for real audio" in done.out


def test_what_breaks_the_contract_is_exit_code_1_and_what_is_not_there_2(uwbench: Command, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(BROKEN)
    done = uwbench("models", "check", f"{tmp_path}/own.py:TenNotTwenty")
    assert done.code == 1
    assert "problem: declares one frame per 10 ms but returns one per 19.98 ms" in done.out
    assert uwbench("models", "check", "whisper-tny").code == 2
    done = uwbench("models", "check", "logmel", "-t", "esc50")
    assert done.code != 0
    assert "esc50" in done.err


def test_one_model_in_full_with_its_flags(uwbench: Command, tmp_path: Path) -> None:
    found = json.loads(uwbench("models", "show", "wav2vec2-base", "--json").out)
    assert found["hub_id"] == "facebook/wav2vec2-base"
    assert found["trained_on"]["data"] == [{"dataset": "librispeech", "split": "train"}]
    assert found["contamination"]["trained on train"] == ["librispeech_asr", "librispeech_mf"]
    assert "libricount" in found["contamination"]["same source"]
    assert json.loads(uwbench("models", "show", "facebook/wav2vec2-base", "--json").out) == found
    assert uwbench("models", "show", "wav2vec2-bas").code == 2

    folder = tmp_path / "mine"
    from transformers import EncodecConfig, EncodecModel

    EncodecModel(EncodecConfig(num_filters=4, hidden_size=16, codebook_size=8, codebook_dim=16)).save_pretrained(folder)
    (folder / "training_data.json").write_text('[{"dataset": "FSD50K", "split": "dev"}]')
    found = json.loads(uwbench("models", "show", str(folder), "--json").out)
    assert found["contamination"]["trained on train"] == ["fsd50k"]
    assert "esc50" in found["contamination"]["same source"]
    assert "ravdess" in found["contamination"]["clean"]


def test_the_list_says_size_rate_context_hop_layers_licence_and_data(uwbench: Command) -> None:
    found = json.loads(uwbench("models", "--json").out)
    assert [entry["name"] for entry in found] == [entry.name for entry in CATALOGUE]
    for entry in found:
        if entry["name"] != "uniwhisper":
            assert entry["parameters"] is None or entry["parameters"] >= 0
            assert entry["layers"] > 0 or entry["verified"] == "not run"
            assert entry["training_data"]
        assert entry["sample_rate"] > 0
        assert entry["verified"] == "not run" if entry["hop_s"] is None else entry["hop_s"] > 0
        assert entry["licence"]
    counts = Counter(entry["verified"] for entry in found)
    assert set(counts) == {"weights", "random", "not run"}
    text = " ".join(uwbench("models").out.split())
    tested = f"published weights {counts['weights']}, random weights {counts['random']}"
    assert f"{len(found)} models; in tests: {tested}" in text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("wav2vec2-base", "Wav2Vec2"),
        ("hubert-base-ls960", "Hubert"),
        ("wavlm-base", "WavLM"),
        ("data2vec-audio-base", "Data2VecAudio"),
        ("unispeech-sat-base", "UniSpeechSat"),
        ("w2v-bert-2.0", "Wav2Vec2Bert"),
        ("ast-audioset", "AST"),
    ],
)
def test_sizes_are_those_of_transformers_models(name: str, kind: str) -> None:
    import transformers

    with torch.device("meta"):
        model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")())
    # A mask of training alone is left out, as in the weights that are read.
    count = sum(value.numel() for key, value in model.named_parameters() if not key.endswith("masked_spec_embed"))
    assert next(entry for entry in CATALOGUE if entry.name == name).parameters == count


VECTORS = """
import torch
from uwbench import Encoded, EncoderInfo


class Vectors:
    info = EncoderInfo("vectors", "own", 16_000, 2, ("last",), {hop}, None, batching="single")

    def load(self, device, dtype):
        pass

    def encode(self, waveforms, lengths, layers):
        vectors = torch.stack([waveforms.mean(-1), waveforms.square().mean(-1)], -1)
        return Encoded(vectors[:, None, None].expand(-1, -1, {frames}, -1), torch.full_like(lengths, {frames}))
"""


@pytest.mark.parametrize(
    ("hop", "frames", "said"),
    [
        (0, 1, "hop              none: one vector per clip"),
        (0, 2, "problem: declares one frame per clip (hop_s 0) but returns 2 for the longest"),
        (0.02, 1, "declare hop_s=0 if it gives one vector per clip"),
    ],
)
def test_an_encoder_may_give_one_vector_per_clip(
    uwbench: Command, tmp_path: Path, hop: float, frames: int, said: str
) -> None:
    (tmp_path / "vectors.py").write_text(VECTORS.format(hop=hop, frames=frames))
    checked = uwbench("models", "check", "vectors.py:Vectors")
    assert said in checked.out
    assert checked.code == (0 if said.startswith("hop") else 1)
    if checked.code == 0:
        assert uwbench("run", "-m", "vectors.py:Vectors", "-t", "mini_music", "--method", "knn").code == 0


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("torchcrepe", "crepe-full or crepe-tiny?"),  # a package
        ("hear21passt", "passt-s?"),
        ("CLAP", "clap-htsat-unfused or"),  # a family
        ("MERT-v1-95M", "mert-95m or"),  # a repository of the hub
        ("qwen", "qwen2-audio or"),
        ("logmell", "logmel?"),
    ],
)
def test_an_unknown_name_is_answered_with_what_it_may_mean(uwbench: Command, name: str, meant: str) -> None:
    done = uwbench("run", "-m", name, "-t", "mini_music")
    assert done.code == 2
    assert f"did you mean {meant}" in done.err
    done = uwbench("run", "-m", "zzz", "-t", "mini_music")
    assert "did you mean" not in done.err
    assert "uwbench models lists all" in done.err


def test_a_model_without_a_wrapper_says_where_its_code_is_and_nothing_that_is_not_known(uwbench: Command) -> None:
    shown = uwbench("models", "xeus").out
    assert "page: https://huggingface.co/espnet/xeus" in shown
    assert "layers:" not in shown
    assert "null" not in shown
    done = uwbench("run", "-m", "xeus", "-t", "mini_music")
    assert done.code == 2
    assert "https://huggingface.co/espnet/xeus" in done.err
    assert "https://github.com/nttcslab/m2d" in uwbench("run", "-m", "m2d-base", "-t", "mini_music").err


def test_the_list_marks_models_that_embed_texts(uwbench: Command) -> None:
    marked = {entry["name"]: entry["family"] for entry in json.loads(uwbench("models", "--json").out) if entry["texts"]}
    assert set(marked.values()) == {"clap", "pe_audio"}
    assert "larger-clap-music" in marked
    assert "pe-av-large" not in marked  # its audio tower alone is read
    lines = uwbench("models", "--verbose", columns=200).out.splitlines()
    assert all((" yes " in line) == (line.split()[0] in marked) for line in lines if "kHz" in line)
    assert f"With texts, for zero-shot: {', '.join(marked)}." in " ".join(lines)
