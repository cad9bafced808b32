"""Packed questions and losses in parts: the numbers of separate rows and of all scores at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runs import digits
from small_lm import FAMILIES, write_lm
from small_whisper import ENCODER
from uniwhisper.cli.train import overlay_of
from uniwhisper.config import Config, load_config, overlaid
from uniwhisper.cost import Costs
from uniwhisper.data.examples import Example, Question
from uniwhisper.language_model import attended_pairs
from uniwhisper.model.build import build_model
from uniwhisper.model.collate import Batch, Collator
from uniwhisper.model.model import AudioModel, visible
from uniwhisper.model.tokens import open_text
from uniwhisper.training.log import Tally, useful_flops


def settings(whisper: Path, folder: Path | None, **overlay: Any) -> Config:
    named = overlay_of((), encoder=str(whisper), lm=None if folder is None else str(folder))
    return load_config("cpu-mini", overlaid(named, {"encoder": ENCODER, **overlay}))


def batches(config: Config, examples: list[Example]) -> tuple[Batch, Batch]:
    """Return the same questions packed and in rows of their own, for a model in float64."""
    text = open_text(config)
    made = [
        Collator(text, config.encoder.mels, config.adapter.stack, "sqrt_tokens", packed=packed)(examples)
        for packed in (True, False)
    ]
    packed, apart = (replace(batch, mel=batch.mel.double()) for batch in made)
    return packed, apart


@pytest.fixture(scope="module")
def examples(shared_data: Path) -> list[Example]:
    """Three clips of different length with three, one and two questions."""
    clips = digits(shared_data, 3)
    third = Question("Describe what is said in one sentence.", "A man says a digit.", "caption")
    return [
        replace(clips[0], questions=(*clips[0].questions, third)),
        replace(clips[1], questions=clips[1].questions[:1], audio=clips[1].audio[:4_000]),
        replace(clips[2], audio=clips[2].audio.repeat(2)),
    ]


def learnt(model: AudioModel, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the losses and the gradients of their weighted sum."""
    model.zero_grad(set_to_none=True)
    losses = model(batch)
    (losses * batch.weights).sum().backward()
    return losses.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(one: tuple[torch.Tensor, dict[str, torch.Tensor]], two: Any) -> None:
    # Only the order of sums may differ. Gradients are compared on the scale of the largest of their tensor.
    torch.testing.assert_close(one[0], two[0], rtol=1e-5, atol=1e-5)  # losses are computed in fp32
    assert one[1].keys() == two[1].keys()
    for name, value in one[1].items():
        torch.testing.assert_close(value, two[1][name], rtol=1e-5, atol=1e-5 * float(value.abs().max()), msg=name)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_questions_have_the_losses_and_gradients_of_separate_ones(
    family: str, checkpointing: bool, small_whisper: Path, tmp_path: Path, examples: list[Example]
) -> None:
    lm = write_lm(tmp_path / "lm", family)
    config = settings(small_whisper, lm, run={"checkpointing": checkpointing})
    model = build_model(config).double()
    packed, apart = batches(config, examples)
    assert (len(packed.lengths), len(apart.lengths)) == (3, 6)
    assert packed.tasks == apart.tasks == ("digit", "speaker", "caption", "digit", "digit", "speaker")
    assert packed.answers == apart.answers
    assert torch.equal(packed.weights, apart.weights)
    shared = [len(open_text(config).before) + int(tokens) + 2 for tokens in packed.tokens]
    assert sum(apart.lengths) - sum(packed.lengths) == 2 * shared[0] + shared[2]
    assert_equal(learnt(model, packed), learnt(model, apart))


def test_a_question_hears_nothing_of_the_others_of_its_row(
    small_whisper: Path, tmp_path: Path, examples: list[Example]
) -> None:
    config = settings(small_whisper, write_lm(tmp_path / "lm", "qwen3"))
    model = build_model(config)
    collate = Collator(open_text(config), config.encoder.mels, config.adapter.stack, packed=True)
    first = examples[0].questions
    other = replace(examples[0], questions=(Question("Which?", "seven", "digit"), *first[1:]))
    one, two = collate([examples[0]]), collate([other])
    with torch.no_grad():
        before, after = (model(batch).split(list(batch.answers)) for batch in (one, two))
    for place in (1, 2):
        torch.testing.assert_close(before[place], after[place], rtol=1e-5, atol=1e-5)
    assert before[0].shape != after[0].shape


@given(
    st.lists(st.tuples(st.integers(1, 5), st.lists(st.integers(1, 4), min_size=1, max_size=3)), min_size=1, max_size=3),
    st.sampled_from([None, 1, 3]),
)
def test_the_mask_is_that_of_rows_read_alone(rows: list[tuple[int, list[int]]], window: int | None) -> None:
    width = max(shared + sum(texts) for shared, texts in rows) + 1
    segments, positions = torch.full((len(rows), width), -1), torch.zeros(len(rows), width, dtype=torch.long)
    for index, (shared, texts) in enumerate(rows):
        numbers = [0] * shared + [number for number, text in enumerate(texts, 1) for _ in range(text)]
        places = [*range(shared), *(shared + place for text in texts for place in range(text))]
        segments[index, : len(numbers)] = torch.tensor(numbers)
        positions[index, : len(numbers)] = torch.tensor(places)
    batch: Any = type("Rows", (), {"segments": segments, "positions": positions})
    mask = visible(batch, window)[:, 0]
    for index, (shared, texts) in enumerate(rows):
        seen = 0
        for q in range(width):
            for k in range(width):
                same = segments[index, k] in (0, segments[index, q]) if segments[index, q] >= 0 else False
                back = int(positions[index, q] - positions[index, k])
                expected = bool(same and back >= 0 and (window is None or back < window)) or q == k
                assert bool(mask[index, q, k]) == expected
                seen += expected and bool(segments[index, q] >= 0)
        tokens = shared + sum(texts)
        if window is None:  # the diagonal is counted whole
            assert seen == attended_pairs(shared, texts) + tokens / 2


@pytest.mark.parametrize("train", ["full", "lora", "whisper"])
def test_losses_in_parts_are_those_of_all_scores_at_once(
    train: str, small_whisper: Path, tmp_path: Path, examples: list[Example]
) -> None:
    lm = {"kind": "whisper"} if train == "whisper" else {"train": train}
    folder = None if train == "whisper" else write_lm(tmp_path / "lm", "gemma2")
    config = settings(small_whisper, folder, lm=lm)
    model = build_model(config).double()
    batch, _ = batches(config, examples)
    width = model.decoder.get_input_embeddings().num_embeddings
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim == 2 and tensor.shape[1] == width:
            kept.append(tensor.shape[0])
        return tensor

    results = []
    for most in (10**9, 7 * width + 3):
        model.most_scores = most
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            results.append((learnt(model, batch), max(kept, default=0)))
        kept.clear()
    assert_equal(results[0][0], results[1][0])
    assert [rows for _, rows in results] == [len(batch.weights), 0]  # in parts, none are kept for the backward


def test_whispers_decoder_reads_each_question_alone(small_whisper: Path, examples: list[Example]) -> None:
    config = settings(small_whisper, None, lm={"kind": "whisper"})
    packed, apart = batches(config, examples)
    assert packed.segments is None
    assert torch.equal(packed.ids, apart.ids)
    costs = Costs.of(config)
    assert costs.clip(50, 50, 8, 4, questions=2) == pytest.approx(
        costs.audio(50, "joint") + 2 * (costs.clip(50, 50, 8, 4) - costs.audio(50, "joint"))
    )


def test_the_plan_and_the_log_count_packed_rows(small_whisper: Path, tmp_path: Path, examples: list[Example]) -> None:
    assert load_config("full").data.packed
    for questions, saved in ((2, 0.28), (4, 0.42)):  # of the language model's tokens, for clips of 10 s
        data = {"qa_per_audio": questions, "pad30_prob": 0.0}
        packed, apart = (
            Costs.of(load_config("full", {"data": {**data, "packed": packed}})) for packed in (True, False)
        )
        audio = packed.audio(500, "joint")
        text = [costs.clip(500, 500, 60, 40, questions=questions) - audio for costs in (packed, apart)]
        head = 3 * questions * 2 * 151_936 * 1024 * 40  # scores are of answers alone, packed or not
        assert 1 - (text[0] - head) / (text[1] - head) == pytest.approx(saved, abs=0.02)
    config = settings(small_whisper, write_lm(tmp_path / "lm", "llama"))
    costs, (batch, apart) = Costs.of(config), batches(config, examples)
    assert costs.lm is not None
    assert useful_flops(batch, costs, "joint") < useful_flops(apart, costs, "joint")
    tallies = [Tally(), Tally()]
    for tally, rows in zip(tallies, (batch, apart), strict=True):
        tally.add(rows, torch.arange(len(rows.weights)), costs, "joint")
    assert tallies[0].tasks == tallies[1].tasks
    assert tallies[0].answers == tallies[1].answers == len(batch.weights)
