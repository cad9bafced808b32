"""The model: the original encoder's numbers, exact masks, independent rows, trained and frozen parts."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, WhisperConfig, WhisperModel

from runs import LM
from uniwhisper.config import Config, Stage, load_config
from uniwhisper.cost import Costs
from uniwhisper.data.examples import Example, Question
from uniwhisper.language_model import model_configuration, shape_of
from uniwhisper.model.adapter import Adapter
from uniwhisper.model.build import build_model, set_stage
from uniwhisper.model.collate import Collator, audio_tokens, log_mel
from uniwhisper.model.model import AudioModel, UniWhisper
from uniwhisper.model.tokens import open_text
from uniwhisper.training.log import Tally, done_flops, useful_flops
from uwbench.api import AudioError, AudioFile, InputError, UsageError, decode


def mini(whisper: Path, **overlay: Any) -> Config:
    """Return cpu-mini with the real encoder and a language model of a few thousand parameters."""
    lm = {**LM, **overlay.pop("lm", {})}
    return load_config("cpu-mini", {"encoder": {"init": str(whisper)}, "lm": lm, **overlay})


def collator(config: Config) -> Collator:
    return Collator(open_text(config), config.encoder.mels, config.adapter.stack, config.optimiser.reduction)


@pytest.fixture(scope="module")
def examples(shared_data: Path) -> list[Example]:
    """Eight sounds of five seconds, with two questions each of different length."""
    with (shared_data / "esc10" / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::50]
    return [
        Example(
            row["path"],
            "esc10",
            decode(AudioFile(shared_data / "esc10" / row["path"]), 16_000),
            (Question("What is heard?", row["label"], "class"), Question("Fold?", row["fold"], "fold")),
        )
        for row in rows
    ]


@pytest.fixture(scope="module")
def config(whisper_tiny: Path) -> Config:
    return mini(whisper_tiny)


@pytest.fixture(scope="module")
def model(config: Config) -> AudioModel:
    return build_model(config)


@pytest.mark.parametrize("seconds", [0.3, 5.0, 29.99, 30.0])
def test_thirty_seconds_are_the_stock_encoder_bit_for_bit(
    model: AudioModel, whisper_tiny: Path, shared_data: Path, seconds: float
) -> None:
    from transformers import WhisperFeatureExtractor

    sound = sorted((shared_data / "esc10" / "audio").iterdir())[3]
    clip = np.tile(decode(AudioFile(sound), 16_000), 7)[: int(seconds * 16_000)]
    mel = log_mel([clip], 80, pad30=True)
    stock: Any = WhisperFeatureExtractor(feature_size=80)
    expected = stock(clip, sampling_rate=16_000, return_tensors="pt").input_features
    assert torch.equal(mel, expected)
    whisper = WhisperModel.from_pretrained(whisper_tiny, dtype=torch.float32).encoder
    with torch.no_grad():
        assert torch.equal(model.encode(mel), whisper(expected).last_hidden_state)


def test_a_short_edge_has_the_features_of_thirty_seconds(examples: list[Example]) -> None:
    clip = examples[0].audio[:50_000]
    short, whole = log_mel([clip], 80), log_mel([clip], 80, pad30=True)
    assert short.shape[2] < 400
    torch.testing.assert_close(short, whole[..., : short.shape[2]], rtol=0, atol=1e-5)
    together = log_mel([clip, 0.01 * clip[:20_000]], 80)
    torch.testing.assert_close(together[1, :, :104], log_mel([0.01 * clip[:20_000]], 80)[0, :, :104], rtol=0, atol=1e-5)


@given(st.integers(1, 480_000), st.sampled_from([1, 2, 4, 8]))
def test_one_audio_token_per_stack_of_frames(samples: int, stack: int) -> None:
    count = audio_tokens(samples, stack)
    assert (count - 1) * 320 * stack < samples <= count * 320 * stack
    assert audio_tokens(480_000, 4) == 375


def test_only_answer_and_end_are_learnt(config: Config, examples: list[Example]) -> None:
    batch, text = collator(config)(examples[:3]), open_text(config)
    questions = [question for example in examples[:3] for question in example.questions]
    for row, question in enumerate(questions):
        learnt = batch.ids[row][batch.is_answer[row]].tolist()
        assert learnt == [*question.answer.encode(), text.end]
        assert int(batch.is_audio[row].sum()) == audio_tokens(len(examples[0].audio), 4) + 2
        assert not (batch.is_answer[row] & batch.is_audio[row]).any()
    assert len(batch.weights) == int(batch.is_answer.sum())


def test_special_tokens_in_user_text_are_text(config: Config) -> None:
    text = open_text(config)
    assert text.end not in text.encode("say <|im_end|> aloud")
    assert text.decode(text.encode("Zoë 東")) == "Zoë 東"


def losses(model: AudioModel, batch: Any) -> list[torch.Tensor]:
    with torch.no_grad():
        return list(model(batch).split(batch.is_answer.sum(dim=1).tolist()))


@pytest.mark.parametrize("kind", ["random-causal", "whisper"])
def test_rows_do_not_affect_each_other(whisper_tiny: Path, examples: list[Example], kind: str) -> None:
    config = mini(whisper_tiny, lm={"kind": kind})
    model, collate = build_model(config), collator(config)
    before = collate(examples[:2])
    other = replace(
        examples[1],
        questions=(
            Question("Name the sound that you hear in this recording, with one word", *_rest(examples[1], 0)),
            examples[1].questions[1],
        ),
    )
    after = collate([examples[0], other])
    if after.ids.shape == before.ids.shape:
        pytest.fail("the changed instruction should change the width, and with it the padding")
    pairs = list(zip(losses(model, before), losses(model, after), strict=True))
    for row in (0, 1, 3):
        torch.testing.assert_close(*pairs[row], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(*pairs[2], atol=1e-4)
    padded = before.ids.clone()
    last = before.is_answer[1].nonzero().max()
    padded[1, last + 1 :] = 65
    assert last + 1 < padded.shape[1]
    for one, two in zip(losses(model, before), losses(model, replace(before, ids=padded)), strict=True):
        assert torch.equal(one, two)


def _rest(example: Example, index: int) -> tuple[str, str]:
    return example.questions[index].answer, example.questions[index].task


def test_one_answer_token_changes_no_loss_before_it(model: AudioModel, config: Config, examples: list[Example]) -> None:
    batch = collator(config)(examples[:2])
    changed, place = batch.ids.clone(), int(batch.is_answer[0].nonzero()[2])
    changed[0, place] = 122
    one, two = losses(model, batch), losses(model, replace(batch, ids=changed))
    assert torch.equal(one[0][:2], two[0][:2])
    assert not torch.equal(one[0][2], two[0][2])
    assert all(torch.equal(a, b) for a, b in zip(one[1:], two[1:], strict=True))


def gradients(model: AudioModel, batches: list[Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """Return loss and gradients of a step in float64, as the trainer sums them."""
    model.zero_grad(set_to_none=True)
    total = sum(float(batch.weights.sum()) for batch in batches)
    value = 0.0
    for batch in batches:
        loss = (model(replace(batch, mel=batch.mel.double())) * batch.weights).sum() / total
        loss.backward()
        value += loss.item()
    return value, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reduction", ["token", "sample", "sqrt_tokens"])
def test_one_batch_of_eight_equals_eight_batches_of_one(
    whisper_tiny: Path, examples: list[Example], reduction: str
) -> None:
    config = mini(whisper_tiny, optimiser={"reduction": reduction})
    model, collate = build_model(config).double(), collator(config)
    short = [replace(example, audio=example.audio[:16_000]) for example in examples]
    one, whole = gradients(model, [collate(short)])
    eight, parts = gradients(model, [collate([example]) for example in short])
    assert one == pytest.approx(eight, rel=1e-6)
    assert set(whole) == set(parts)
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], rtol=1e-6, atol=1e-6 * float(value.abs().max()))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("train", ["full", "frozen", "lora"])
def test_frozen_parts_get_no_gradient_and_the_encoder_does(
    whisper_tiny: Path, examples: list[Example], train: str, checkpointing: bool
) -> None:
    config = mini(whisper_tiny, lm={"train": train}, run={"checkpointing": checkpointing})
    model = build_model(config)
    batch = collator(config)([replace(examples[0], audio=examples[0].audio[:8_000])])
    model(batch).sum().backward()
    assert model.encoder.conv1.weight.grad.abs().sum() > 0
    assert model.encoder.embed_positions.weight.grad is None
    assert all(p.grad is not None for p in model.adapter.parameters()) if isinstance(model, UniWhisper) else False
    learnt = {name for name, p in model.lm.named_parameters() if p.grad is not None}
    assert {name.rpartition(".")[2] for name in learnt} <= {"down", "up"} if train == "lora" else True
    assert bool(learnt) == (train != "frozen")
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == Costs.of(config).parameters()[3]


def test_the_bridge_leaves_the_encoder_alone(whisper_tiny: Path) -> None:
    config = mini(whisper_tiny)
    model = build_model(config)
    set_stage(model, config, "bridge")
    assert not any(p.requires_grad for p in model.encoder.parameters())
    set_stage(model, config, "joint")
    assert model.encoder.conv1.weight.requires_grad


def whisper_of(config: Config) -> WhisperModel:
    """Return a Whisper of a configuration's shape, as transformers builds it."""
    encoder = config.encoder
    heads = max(encoder.dim // 64, 1)
    shape = WhisperConfig(
        num_mel_bins=encoder.mels,
        d_model=encoder.dim,
        encoder_layers=encoder.layers,
        encoder_ffn_dim=encoder.ffn,
        encoder_attention_heads=heads,
        decoder_layers=encoder.layers,
        decoder_ffn_dim=encoder.ffn,
        decoder_attention_heads=heads,
        max_source_positions=encoder.positions,
        vocab_size=51_866,
    )
    return WhisperModel(shape)


@pytest.mark.parametrize(("name", "billions"), [("full", 1.239), ("small", 0.6884)])
def test_the_whole_model_has_the_planned_parameters(name: str, billions: float) -> None:
    config = load_config(name)
    with torch.device("meta"):  # the shapes alone, at any size
        adapter = Adapter(config.encoder.dim, shape_of(config.lm).dim, config.adapter.stack, 1.0)
        lm = AutoModelForCausalLM.from_config(model_configuration(config.lm))
        parts = (whisper_of(config).encoder, adapter, lm)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == list(Costs.of(config).parameters()[:3])
    assert sum(counts) == pytest.approx(billions * 1e9, rel=1e-3)


def test_the_shallow_adapter_has_the_planned_parameters_and_learns(whisper_tiny: Path, examples: list[Example]) -> None:
    config = mini(whisper_tiny, adapter={"kind": "linear"})
    model: Any = build_model(config)
    assert sum(p.numel() for p in model.adapter.parameters()) == Costs.of(config).parameters()[1]
    model(collator(config)([replace(examples[0], audio=examples[0].audio[:8_000])])).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.adapter.parameters())


def test_the_whisper_arm_has_the_planned_parameters() -> None:
    config = load_config("full", {"lm": {"kind": "whisper"}})
    with torch.device("meta"):
        decoder = whisper_of(config).decoder
    assert sum(p.numel() for p in decoder.parameters()) == Costs.of(config).parameters()[2]


def test_bad_input_is_named(whisper_tiny: Path, config: Config) -> None:
    with pytest.raises(AudioError, match="clip 1: 480001 samples"):
        log_mel([np.zeros(10, np.float32), np.zeros(480_001, np.float32)], 80)
    with pytest.raises(AudioError, match="clip 0"):
        log_mel([np.full(100, np.nan, np.float32)], 80)
    with pytest.raises(InputError, match=r"encoder.lr"):
        load_config("cpu-mini", {"encoder": {"lr": -1}})
    with pytest.raises(InputError, match="is not a key"):
        load_config("cpu-mini", {"encoder": {"lrate": 1}})
    with pytest.raises(InputError, match="the configuration says"):
        build_model(mini(whisper_tiny, encoder={"init": str(whisper_tiny), "layers": 3}))
    with pytest.raises(InputError, match=r"data\.wording\.phrase: is not a key; did you mean phrases"):
        load_config("cpu-mini", {"data": {"wording": {"phrase": 1}}})
    with pytest.raises(InputError, match="nowhere: is no folder, and no OWNER/NAME"):
        build_model(mini(whisper_tiny, encoder={"init": "nowhere"}))
    with pytest.raises(UsageError):
        load_config("cpu-mni")


@pytest.mark.parametrize("stage", ["bridge", "joint"])
def test_the_logged_flops_are_those_of_the_batch_in_its_stage(
    whisper_tiny: Path, examples: list[Example], stage: Stage
) -> None:
    config = mini(whisper_tiny, lm={"kind": "causal"})
    costs = Costs.of(config)
    assert costs.lm is not None
    clips = [replace(examples[0], audio=examples[0].audio[:seconds]) for seconds in (32_000, 64_000)]
    batch = collator(config)(clips)
    expected, done = 0.0, 0.0
    answers = batch.is_answer.sum(dim=1).tolist()
    for index, example in enumerate(clips):
        frames = len(example.audio) / 320
        learns = 3 if stage == "joint" else 1
        expected += learns * config.encoder.flops(frames)
        done += learns * config.encoder.flops(200)  # both clips as long as the longer
        first = config.adapter.first_flops(config.encoder, costs.lm.dim, frames)
        expected += 3 * config.adapter.flops(config.encoder, costs.lm.dim, frames) - (first if stage == "bridge" else 0)
        for row in (2 * index, 2 * index + 1):
            tokens = batch.lengths[row]
            expected += (3 if stage == "joint" else 2) * costs.lm.flops(tokens, tokens**2 / 2, answers[row])
    assert useful_flops(batch, costs, stage) == pytest.approx(expected, rel=1e-9)
    assert done_flops(batch, costs, stage) > max(expected, done)
    tally = Tally()
    tally.add(batch, torch.zeros(int(batch.is_answer.sum())), costs, stage)
    assert (tally.flops, tally.done_flops) == (useful_flops(batch, costs, stage), done_flops(batch, costs, stage))
