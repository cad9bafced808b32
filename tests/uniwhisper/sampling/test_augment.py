"""Augmentation of training clips: exact in level, noise and cut; both of two clips named; the same in every process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import correlate

from packed import items
from runs import LM
from small_whisper import ENCODER
from uniwhisper.config import Augment, Config, load_config
from uniwhisper.data.examples import Example
from uniwhisper.data.rows import open_rows
from uniwhisper.data.shards import Asked, Item, read_audio, write_shards
from uniwhisper.data.templates import ask
from uniwhisper.model.collate import Collator
from uniwhisper.model.tokens import open_answers
from uniwhisper.sampling.augment import augmented, together
from uniwhisper.sampling.batches import PlannedBatches, heard
from uniwhisper.sampling.prepare import prepare
from uniwhisper.training.train import StepData, train
from uwbench.api import AudioArray, InputError, UsageError, active_rms, decode

RATE = 16_000
STEPS = 12
ALL = {"gain_db": 10, "noise_prob": 0.5, "crop_share": 0.3, "mix_prob": 0.5}


def utterances(data: Path) -> list[Item]:
    """Return twelve utterances of six spoken digits by one speaker each, with a transcript and the speaker's name."""
    by_speaker: dict[str, list[Item]] = {}
    for item in items(data, "fsdd", 300):
        by_speaker.setdefault(item.asked[1].answers[0], []).append(item)
    made = []
    for name, spoken in by_speaker.items():
        for six in (spoken[:6], spoken[6:12]):
            audio = np.concatenate([decode(said.audio, RATE) for said in six])
            text = " ".join(said.asked[0].answers[0] for said in six)
            about = Asked("asr", (text,)), Asked("speaker_id", (name,))
            made.append(replace(six[0], audio=AudioArray(audio, RATE, six[0].clip), asked=about))
    return made


@pytest.fixture(scope="module")
def rows(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of utterances, of sounds, and of notes with their instrument and a caption."""
    folder = tmp_path_factory.mktemp("rows")
    notes = [
        replace(item, asked=(*item.asked, Asked("music_caption", ("A single note.",))))
        for item in items(shared_data, "philharmonia", 24)
    ]
    write_shards(folder, [*utterances(shared_data), *items(shared_data, "esc10", 24), *notes])
    return folder


@pytest.fixture(scope="module")
def sounds(rows: Path) -> dict[str, np.ndarray]:
    """The audio of every clip, by its dataset and clip."""
    return {clip_of(row.id): read_audio(row) for row in open_rows([rows])}


def clip_of(row_id: str) -> str:
    return row_id.rpartition(":")[0]


def settings(
    whisper: str = "none", augment: dict[str, Any] | None = None, questions: int = 2, **overlay: Any
) -> Config:
    """Return a run of twelve steps over the rows, with an augmentation."""
    base = {
        "encoder": {**ENCODER, "init": whisper},
        "lm": LM,
        "data": {"mixture": "mini", "bins": 4, "qa_per_audio": questions, "augment": augment or {}},
        "stages": {"bridge": 2, "joint": STEPS - 2},
        "run": {"batch_s": 40, "micro_batch_s": 20, "save_every": 100},
    }
    return load_config("cpu-mini", base | overlay)


def batches(rows: Path, augment: dict[str, Any] | None = None) -> PlannedBatches:
    return prepare(settings(augment=augment), [rows]).batches


def examples(made: PlannedBatches, steps: Sequence[int] = range(STEPS)) -> Iterator[Example]:
    for step in steps:
        for micro in made.micro_batches(step, 0, 1):
            yield from micro


def same(first: Example, second: Example) -> bool:
    return replace(first, audio=None) == replace(second, audio=None) and np.array_equal(first.audio, second.audio)  # type: ignore[arg-type]


def names(answer: str) -> set[str]:
    return set(answer.split("; "))


def decibels(ratio: float) -> float:
    return 20 * float(np.log10(ratio))


def a_sound(seed: int, seconds: float = 2.0, level: float = 0.1) -> np.ndarray:
    """Return a burst of noise amid digital silence."""
    audio = np.zeros(round(seconds * RATE), np.float32)
    rng = np.random.default_rng(seed)
    count = min(len(audio) // 2, RATE // 4)
    start = int(rng.integers(len(audio) - count))
    audio[start : start + count] = level * rng.standard_normal(count)
    return audio


def placed(clip: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """Return a clip where it is heard in a mixture, amid zeros."""
    start = int(np.argmax(correlate(mixture, clip, mode="valid", method="fft")))
    return np.pad(clip, (start, len(mixture) - start - len(clip)))


def keys(seed: int, count: int = 200) -> list[tuple[int, int, str]]:
    return [(seed, visit, "dataset/clip:task") for visit in range(count)]


def test_the_level_changes_by_one_number_in_the_range_and_is_never_clipped() -> None:
    audio = a_sound(0, level=0.4)
    gains = []
    for key in keys(1):
        louder = augmented(audio, Augment(gain_db=12), key, cut=True)
        assert louder.dtype == np.float32
        factor = np.abs(louder).max() / np.abs(audio).max()
        np.testing.assert_allclose(louder, audio * factor, rtol=1e-6)
        gains.append(decibels(factor))
    assert -12 <= min(gains) < -11
    assert 11 < max(gains) <= 12
    assert abs(float(np.mean(gains))) < 2
    assert np.abs(audio).max() * 10 ** (max(gains) / 20) > 2  # beyond a converter's range


@given(st.integers(0, 2**32), st.floats(-10, 60), st.floats(0, 30))
def test_noise_has_the_ratio_that_is_drawn(seed: int, least: float, wide: float) -> None:
    audio = a_sound(seed)
    exact = Augment(noise_prob=1, noise_db=(least, least))
    added = augmented(audio, exact, (seed, 0, "x"), cut=True).astype(np.float64) - audio
    assert decibels(active_rms(audio, RATE) / np.sqrt((added * added).mean())) == pytest.approx(least, abs=0.05)
    ranged = Augment(noise_prob=1, noise_db=(least, least + wide))
    added = augmented(audio, ranged, (seed, 0, "x"), cut=True).astype(np.float64) - audio
    ratio = decibels(active_rms(audio, RATE) / np.sqrt((added * added).mean()))
    assert least - 0.05 <= ratio <= least + wide + 0.05


def test_as_many_clips_have_noise_as_asked_and_no_two_the_same() -> None:
    audio = a_sound(0)
    noisy = [augmented(audio, Augment(noise_prob=0.25), key, cut=False) for key in keys(0, 400)]
    changed = [made for made in noisy if not np.array_equal(made, audio)]
    assert len(changed) / len(noisy) == pytest.approx(0.25, abs=0.06)
    assert len({made.tobytes() for made in changed}) == len(changed)


@given(st.integers(0, 2**32), st.floats(0.01, 1), st.floats(0.05, 8))
def test_a_stretch_is_part_of_the_clip_and_holds_its_sound(seed: int, share: float, seconds: float) -> None:
    audio = a_sound(seed, seconds)
    part = augmented(audio, Augment(crop_share=share), (seed, 0, "x"), cut=True)
    assert len(part) >= min(len(audio), max(RATE, int(share * len(audio))))
    assert part.tobytes() in audio.tobytes()
    assert np.abs(part).max() > 0
    assert augmented(audio, Augment(crop_share=share), (seed, 0, "x"), cut=False) is audio


def test_stretches_differ_in_length_and_place() -> None:
    audio = np.arange(4 * RATE, dtype=np.float32) + 1  # the loudest moment is the end
    parts = [augmented(audio, Augment(crop_share=0.5), key, cut=True) for key in keys(0)]
    assert {part[-1] for part in parts} == {4 * RATE}
    lengths = [len(part) / len(audio) for part in parts]
    assert np.quantile(lengths, [0, 0.5, 1]) == pytest.approx([0.5, 0.75, 1], abs=0.05)
    starts = {float(augmented(audio[::-1].copy(), Augment(crop_share=0.5), key, cut=True)[0]) for key in keys(0)}
    assert starts == {4 * RATE}
    even = np.ones(4 * RATE, np.float32)
    even[2 * RATE] = 2
    places = [int(np.argmax(augmented(even, Augment(crop_share=0.5), key, cut=True))) for key in keys(0)]
    assert len(set(places)) > 100


@given(st.integers(0, 2**32), st.floats(0.3, 4), st.floats(0.3, 4), st.floats(0.01, 1))
def test_two_clips_are_heard_at_levels_as_far_apart_as_asked(
    seed: int, first_s: float, second_s: float, level: float
) -> None:
    first, second = a_sound(seed, first_s), a_sound(seed + 1, second_s, level)
    both = together(first, second, Augment(mix_db=3), (seed, 0, "x"))
    assert both is not None
    assert both.dtype == np.float32
    assert len(both) == max(len(first), len(second))
    rest = both - placed(first, both)
    there = placed(second, rest)
    np.testing.assert_allclose(rest, there * (rest @ there / (there @ there)), atol=1e-5)
    assert abs(decibels(active_rms(rest, RATE) / active_rms(first, RATE))) <= 3.01


def test_a_silent_clip_is_not_mixed() -> None:
    silence = np.zeros(RATE, np.float32)
    assert together(silence, a_sound(0), Augment(), (0, 0, "x")) is None
    assert together(a_sound(0), silence, Augment(), (0, 0, "x")) is None


def test_without_augmentation_clips_are_heard_as_they_are(rows: Path) -> None:
    table = {row.id: row for row in open_rows([rows])}
    made = batches(rows)
    count = 0
    for step in range(STEPS):
        for micro, drawn in zip(made.micro_batches(step, 0, 1), made.planner.draws(step), strict=True):
            for example, draw in zip(micro, drawn, strict=True):
                row = table[example.row]
                assert np.array_equal(example.audio, heard(row, 0, draw.visit, whole=False))
                asked = [made.table[index] for index in made.planner.questions(draw)]
                assert example.questions == tuple(ask(row, 0, draw.visit, wording=made.wording) for row in asked)
                count += 1
    assert count > 50


def test_the_same_step_is_the_same_in_any_order_on_any_rank_and_differs_from_visit_to_visit(rows: Path) -> None:
    first, again = batches(rows, ALL), batches(rows, ALL)
    forward = [list(examples(first, [step])) for step in range(STEPS)]
    for step in reversed(range(STEPS)):
        ranks = [again.micro_batches(step, rank, 2) for rank in (0, 1)]
        whole = [example for pair in zip(*ranks, strict=True) for micro in pair for example in micro]
        assert all(same(*pair) for pair in zip(forward[step], whole, strict=True))
    by_clip: dict[str, list[np.ndarray]] = {}
    for example in examples(first):
        by_clip.setdefault(clip_of(example.row), []).append(example.audio)
    repeated = [audio for audio in by_clip.values() if len(audio) > 1]
    assert len(repeated) > 10
    assert not any(np.array_equal(audio[0], audio[1]) for audio in repeated)


def test_only_what_a_part_answers_is_cut(rows: Path, sounds: dict[str, np.ndarray]) -> None:
    cut, whole = set(), set()
    for example in examples(batches(rows, {"crop_share": 0.2})):
        audio = sounds[clip_of(example.row)]
        if len(example.audio) < len(audio):
            cut |= {question.task for question in example.questions}
        else:
            assert np.array_equal(example.audio, audio)
            whole |= {question.task for question in example.questions}
    assert cut == {"sound_cls"}
    assert {"asr", "music_caption"} <= whole
    alone = settings(augment={"crop_share": 0.2}, questions=1)
    heard_s: dict[str, list[float]] = {}
    for example in examples(prepare(alone, [rows]).batches):
        share = len(example.audio) / len(sounds[clip_of(example.row)])
        heard_s.setdefault(example.questions[0].task, []).append(share)
    assert set(heard_s) == {"asr", "speaker_id", "sound_cls", "instrument", "music_caption"}
    assert {task for task, shares in heard_s.items() if min(shares) == 1} == {"asr", "music_caption"}


def test_both_clips_are_heard_and_named(rows: Path, sounds: dict[str, np.ndarray]) -> None:
    labels = {clip_of(row.id): row.answers[0] for row in open_rows([rows]) if row.task == "sound_cls"}
    made = batches(rows, {"mix_prob": 1})
    listed, tasks = 0, set()
    for example in examples(made):
        for question in example.questions:
            tasks.add((question.task, bool(question.parts)))
            if question.parts:
                assert names(question.answer) == names(question.parts[0]) | names(question.parts[1])
                assert len(question.answer.split("; ")) == len(names(question.answer))
        if example.dataset != "esc10":
            continue
        (question,) = example.questions
        rest = example.audio - sounds[clip_of(example.row)]
        (other,) = (clip for clip in labels if np.corrcoef(rest, sounds[clip])[0, 1] > 0.999)
        assert question.parts == (labels[clip_of(example.row)], labels[other])
        listed += len(names(question.answer)) == 2
    assert listed > 10
    assert tasks == {("sound_cls", True), ("instrument", True), ("asr", False), ("speaker_id", False)}


def test_as_many_are_mixed_as_asked_and_batches_keep_their_size(rows: Path) -> None:
    made = batches(rows, {"mix_prob": 0.4})
    mixed = []
    for step in range(STEPS):
        for micro in made.micro_batches(step, 0, 1):
            assert len(micro) * max(RATE, *(len(example.audio) for example in micro)) <= 20 * RATE
            mixed += [bool(example.questions[0].parts) for example in micro if example.domain != "speech"]
    assert len(mixed) > 50
    assert np.mean(mixed) == pytest.approx(0.4, abs=0.12)


def test_a_clip_that_cannot_be_read_is_not_mixed_in(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "rows"
    shutil.copytree(rows, folder)
    broken = [row for row in open_rows([folder]) if row.task == "sound_cls"][::3]
    for row in broken:
        with Path(row.audio.shard).open("r+b") as file:
            file.seek(row.audio.offset)
            file.write(b"\0" * row.audio.size)
    healthy = {row.answers[0] for row in open_rows([folder]) if row.task == "sound_cls" and row not in broken}
    mixed = [example for example in examples(batches(folder, {"mix_prob": 1})) if example.dataset == "esc10"]
    assert len(mixed) > 10
    for example in mixed:
        assert clip_of(example.row) not in {clip_of(row.id) for row in broken}
        assert len(example.questions[0].parts) == 2
        assert set(example.questions[0].parts) <= healthy
    assert "another clip is mixed in" in capsys.readouterr().err


def test_workers_make_the_same_batches(rows: Path, small_whisper: Path) -> None:
    config = settings(str(small_whisper), ALL)
    collate = Collator(open_answers(config), 80, 4, packed=True)
    data = StepData(prepare(config, [rows]).batches, collate, 0, 1)
    here, there = (
        list(torch.utils.data.DataLoader(data, batch_size=None, sampler=range(4), num_workers=workers))
        for workers in (0, 2)
    )
    for first, second in zip(here, there, strict=True):
        for one, two in zip(first, second, strict=True):
            assert torch.equal(one.mel, two.mel)
            assert torch.equal(one.ids, two.ids)


def test_a_run_resumes_to_the_same_weights(rows: Path, small_whisper: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = settings(str(small_whisper), ALL)

    def run(folder: Path, config: Config, until: int | None = None) -> Path:
        ready = prepare(config, [rows])
        return train(config, ready.batches, folder, data_digest=ready.digest, until=until).checkpoint

    whole = run(tmp_path / "whole", config)
    run(tmp_path / "parts", config, 5)
    others = config.model_copy(update={"run": config.run.model_copy(update={"workers": 2})})
    again = run(tmp_path / "parts", others)
    assert (whole / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"another configuration: data\.augment\.gain_db was 10\.0 and is 0\.0"):
        run(tmp_path / "parts", settings(str(small_whisper), ALL | {"gain_db": 0}))


def test_heads_learn_both_classes_of_two_clips(rows: Path, small_whisper: Path, tmp_path: Path) -> None:
    answers: dict[str, set[str]] = {}
    for row in open_rows([rows]):
        if row.task in ("sound_cls", "instrument"):
            answers.setdefault(row.question, set()).update(row.answers)
    classes = {name: sorted(values) for name, values in answers.items()}
    config = settings(str(small_whisper), {"mix_prob": 1}, lm={"kind": "heads", "classes": classes})
    made = prepare(config, [rows]).batches
    listed = [example for example in examples(made) if any("; " in q.answer for q in example.questions)]
    (row,) = {batch_row(config, example) for example in listed[:1]}
    assert len(row) == 2 == len(set(row))
    result = train(config, made, tmp_path)
    assert result.progress.step == STEPS
    assert result.progress.skipped == 0


def batch_row(config: Config, example: Example) -> tuple[int, ...]:
    """Return the classes that heads are to answer about an example."""
    batch = Collator(open_answers(config), 80, 4, "sample")([example])
    assert batch.weights.tolist() == [0.5, 0.5]
    return tuple(batch.ids[batch.is_answer].tolist())


def test_held_out_clips_are_never_augmented(rows: Path) -> None:
    run = {**settings().run.model_dump(), "monitor_every": 5, "monitor_clips": 12}
    plain, changed = (
        prepare(settings(augment=augment, run=run), [rows], held_out=[rows]).held_out for augment in ({}, ALL)
    )
    assert plain is not None
    assert changed is not None
    assert len(plain.examples) == 12
    assert all(same(*pair) for pair in zip(plain.examples, changed.examples, strict=True))


def test_settings_that_cannot_be_are_named(rows: Path) -> None:
    for augment, message in (
        ({"noise_db": [30, 10]}, r"data\.augment: noise_db goes from 30 down to 10"),
        ({"mix_prob": 1.5}, r"data\.augment\.mix_prob: Input should be less than or equal to 1"),
        ({"crop_share": 0}, r"data\.augment\.crop_share: Input should be greater than 0"),
        ({"gain": 3}, r"data\.augment\.gain: is not a key; did you mean gain_db"),
    ):
        with pytest.raises(InputError, match=message):
            settings(augment=augment)
    for key, value in (("mix_prob", 0.5), ("crop_share", 0.5)):
        config = settings(augment={key: value})
        spoken = config.model_copy(update={"data": config.data.model_copy(update={"tasks": ("asr",)})})
        with pytest.raises(UsageError, match=rf"data\.augment\.{key}: changes nothing: no question allows it"):
            prepare(spoken, [rows])
