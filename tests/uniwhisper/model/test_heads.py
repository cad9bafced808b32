"""Heads, the control without a language model: the losses and gradients of plain linear layers over mean frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from runs import InMemory, digits, settings
from uniwhisper.config import Config, load_config
from uniwhisper.cost import make_plan
from uniwhisper.data.examples import Example, Question
from uniwhisper.model.build import build_model
from uniwhisper.model.collate import Collator
from uniwhisper.model.model import Heads
from uniwhisper.model.tokens import open_answers
from uniwhisper.training.checkpoint import checkpoints
from uniwhisper.training.parallel import World
from uniwhisper.training.train import gradients, train
from uwbench.api import InputError

CLASSES = {
    "digit": [str(digit) for digit in range(10)],
    "speaker": ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"],
}


def heads(whisper: Path, **overlay: Any) -> Config:
    return settings(str(whisper), lm={"kind": "heads", "classes": CLASSES}, **overlay)


def collator(config: Config) -> Collator:
    return Collator(open_answers(config), config.encoder.mels, config.adapter.stack, config.optimiser.reduction, True)


@pytest.fixture(scope="module")
def clips(shared_data: Path) -> list[Example]:
    """Six clips of different length, the last with a question that has no head."""
    examples = digits(shared_data, 6)
    return [*examples[:5], replace(examples[5], questions=(Question("Describe it.", "A digit.", "caption"),))]


def reference(model: Heads, examples: list[Example], mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean loss of all answers and its gradient of the first convolution, clip by clip and head by head."""
    frames = model.encode(mel)
    rows = {name: sum(len(CLASSES[before]) for before in list(CLASSES)[:at]) for at, name in enumerate(CLASSES)}
    losses = []
    for clip, example in zip(frames, examples, strict=True):
        mean = clip[: -(-len(example.audio) // 320)].mean(dim=0)
        for question in example.questions:
            if question.task in CLASSES:
                start, answers = rows[question.task], CLASSES[question.task]
                head = torch.nn.Linear(len(mean), len(answers))
                head.weight = torch.nn.Parameter(model.lm.weight[start : start + len(answers)].detach())
                head.bias = torch.nn.Parameter(model.lm.bias[start : start + len(answers)].detach())
                target = torch.tensor([answers.index(question.answer)])
                losses.append(torch.nn.functional.cross_entropy(head(mean)[None], target))
    loss = torch.stack(losses).mean()
    (gradient,) = torch.autograd.grad(loss, [model.encoder.conv1.weight])
    return loss.detach(), gradient


def test_losses_and_gradients_are_those_of_linear_layers(small_whisper: Path, clips: list[Example]) -> None:
    config = heads(small_whisper)
    model = build_model(config)
    assert isinstance(model, Heads)
    batch = collator(config)(clips)
    assert len({len(clip.audio) for clip in clips}) == 6
    loss, gradient = reference(model, clips, batch.mel)
    with World.joined() as world:
        (losses,) = gradients(model, [batch], config, world)
    assert losses.shape == (10,)
    assert float(losses.mean()) == pytest.approx(float(loss), rel=1e-5)
    torch.testing.assert_close(model.encoder.conv1.weight.grad, gradient, rtol=1e-4, atol=1e-7)


def test_frames_of_padding_are_not_in_the_mean(small_whisper: Path, clips: list[Example]) -> None:
    config = heads(small_whisper)
    frames = torch.arange(2 * 80.0).reshape(1, 80, 2)
    count = -(-len(clips[0].audio) // 320)
    assert count < 80
    states = build_model(config).states(frames, collator(config)(clips[:1]))
    torch.testing.assert_close(states[:, 0], frames[:, :count].mean(dim=1).expand(2, 2))


def test_a_step_without_any_head_has_no_gradient(small_whisper: Path, clips: list[Example]) -> None:
    config = heads(small_whisper)
    model = build_model(config)
    with World.joined() as world:
        (losses,) = gradients(model, [collator(config)(clips[5:])], config, world)
    assert losses.shape == (0,)
    assert not any(p.grad is not None and p.grad.any() for p in model.parameters())


def test_labels_in_any_order_are_one_class_and_unknown_answers_are_refused(
    small_whisper: Path, clips: list[Example]
) -> None:
    config = settings(str(small_whisper), lm={"kind": "heads", "classes": {"tagging": ["dog; rain", "rain"]}})
    ids = [
        collator(config)([replace(clips[0], questions=(Question("", answer, "tagging"),))]).ids[0, 1].item()
        for answer in ("dog; rain", "rain; dog", "rain")
    ]
    assert ids == [0, 0, 1]
    with pytest.raises(InputError, match="'cat' is none of its classes"):
        collator(config)([replace(clips[0], questions=(Question("", "cat", "tagging"),))])


def test_of_two_clips_heard_together_each_answer_is_learnt_by_half(small_whisper: Path, clips: list[Example]) -> None:
    config = heads(small_whisper)
    model = build_model(config)
    apart = [replace(clips[0], questions=(Question("", answer, "digit"),)) for answer in ("3", "7")]
    both = replace(clips[0], questions=(Question("", "7; 3", "digit", parts=("3", "7")),))
    alike = replace(clips[0], questions=(Question("", "3", "digit", parts=("3", "3")),))
    with torch.no_grad():
        first, second = (model(collator(config)([example])) for example in apart)
        batch = collator(config)([both])
        torch.testing.assert_close(model(batch), torch.cat([first, second]))
        torch.testing.assert_close(model(collator(config)([alike])), first)
    assert config.optimiser.reduction == "token"
    by_answer = replace(collator(config), reduction="sample")([both])
    assert by_answer.weights.tolist() == [0.5, 0.5]
    with pytest.raises(InputError, match="'cat' is none of its classes"):
        collator(config)([replace(clips[0], questions=(Question("", "3; cat", "digit", parts=("3", "cat")),))])


def test_a_run_resumes_to_the_same_weights(small_whisper: Path, shared_data: Path, tmp_path: Path) -> None:
    config = heads(small_whisper, stages={"bridge": 2, "joint": 4})
    batches = InMemory(digits(shared_data, 24))
    whole = train(config, batches, tmp_path / "whole").checkpoint
    for until in (3, 6):
        train(config, batches, tmp_path / "parts", until=until)
    again = checkpoints(tmp_path / "parts")[-1]
    for part in ("model.safetensors", "encoder/model.safetensors"):
        assert (whole / part).read_bytes() == (again / part).read_bytes()


def test_the_configuration_needs_classes_and_counts_them(small_whisper: Path) -> None:
    plan = make_plan(heads(small_whisper))
    assert (plan.lm_parameters, plan.adapter_parameters) == (16 * 33, 0)
    for lm in ({"kind": "heads"}, {"kind": "whisper", "classes": CLASSES}):
        with pytest.raises(InputError, match="kind heads needs classes, and no other kind has them"):
            load_config("cpu-mini", {"lm": {**lm}})
    with pytest.raises(InputError, match="train must be full, not frozen"):
        load_config("cpu-mini", {"lm": {"kind": "heads", "classes": CLASSES, "train": "frozen"}})
