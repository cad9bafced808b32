"""Instructions: drawn by hash from all phrases, none of which reveals the answer or the dataset."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniwhisper.config import Wording
from uniwhisper.data.rows import AudioRef, Row
from uniwhisper.data.templates import Form, ask, draw, find_form, templates
from uniwhisper.data.wording import read_wording
from uwbench.api import InputError, UsageError

# fmt: off
TASKS = [
    "asr", "st", "lid", "gender", "age", "speaker_same", "speaker_id", "emotion", "intent", "keyword", "spoof",
    "spk_count", "vocal_sound", "tagging", "sound_cls", "scene", "sed", "caption", "qa", "genre", "instrument",
    "pitch", "quality", "music_tag", "music_caption", "general_caption",
]
# fmt: on
SLOTS = {"language": "French", "target": "German", "question": "Who laughs?"}
FORMS = [(task, None, form) for task, form in templates().items()] + [
    (task, name, form) for task, template in templates().items() for name, form in template.forms.items()
]


def filled(task: str, form: str | None) -> dict[str, str]:
    return SLOTS if form is None else {**SLOTS, "form": form}


def test_the_tasks_are_those_of_the_recipe() -> None:
    assert list(templates()) == TASKS
    assert len(TASKS) == 26


@pytest.mark.parametrize(("task", "name", "form"), FORMS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_task_is_asked_in_many_ways_and_all_of_them_are_drawn(task: str, name: str | None, form: Form) -> None:
    if task != "qa":
        assert len(form.phrases) >= 9
        assert len(form.bare) >= 2
    everything = [phrase.format_map(SLOTS) for phrase in (*form.phrases, *form.bare)]
    assert len(set(everything)) == len(everything)
    seen = Counter(draw(task, filled(task, name), 0, epoch, "row") for epoch in range(2000))
    assert set(seen) == set(everything)
    if form.bare:
        bare = {line.format_map(SLOTS) for line in form.bare}
        assert 0.16 < sum(seen[line] for line in bare) / 2000 < 0.24


@pytest.mark.parametrize(("task", "name", "form"), FORMS, ids=lambda value: value if isinstance(value, str) else "")
def test_no_phrase_names_a_dataset_or_lists_answers(task: str, name: str | None, form: Form) -> None:
    datasets = {re.sub(r"[_0-9]+.*", "", known) for known in read_wording("datasets")}
    answers = {"male", "female", "twenties", "happy", "angry", "sad", "violin", "piano", "forte", "rock", "jazz", "dog"}
    for phrase in (*form.phrases, *form.bare):
        words = set(re.findall(r"[a-z0-9]+", phrase.lower()))
        assert not words & datasets
        assert not words & answers


@given(seed=st.integers(0, 2**32), epoch=st.integers(0, 99), row=st.text(max_size=20), task=st.sampled_from(TASKS))
def test_a_draw_depends_on_its_arguments_only(seed: int, epoch: int, row: str, task: str) -> None:
    first = draw(task, SLOTS, seed, epoch, row)
    assert draw(task, dict(reversed(SLOTS.items())), seed, epoch, row) == first
    assert "{" not in first


def test_other_rows_seeds_and_epochs_draw_other_phrases() -> None:
    for vary in (lambda n: (n, 0, "row"), lambda n: (0, n, "row"), lambda n: (0, 0, f"row{n}")):
        assert len({draw("caption", {}, *vary(number)) for number in range(200)}) == 12


def test_a_draw_is_the_hash_of_seed_epoch_and_row() -> None:
    def number(*parts: str) -> int:
        return int(hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16], 16)

    form = find_form("lid")
    for epoch in range(20):
        parts = ("7", str(epoch), "cv/1:lid")
        lines = form.bare if number(*parts, "bare") < 0.2 * 2**64 else form.phrases
        assert draw("lid", {}, 7, epoch, "cv/1:lid") == lines[number(*parts, "phrase") % len(lines)]


def test_phrases_whose_blanks_a_row_does_not_fill_are_not_drawn() -> None:
    seen = {draw("asr", {}, 0, epoch, "row") for epoch in range(500)}
    assert len(seen) == 9
    assert not any("language" in text.lower() or "recording" in text for text in seen)
    with pytest.raises(InputError, match="row: the task st needs target"):
        draw("st", {"language": "French"}, 0, 0, "row")


def test_the_question_of_the_data_is_asked_as_it_is() -> None:
    assert draw("qa", {"question": "What is {this} 100%?"}, 0, 0, "row") == "What is {this} 100%?"


def test_fewer_phrases_bare_lines_only_and_options_by_request() -> None:
    canonical = Wording(bare_share=0.0, phrases=1)
    assert {draw("genre", {}, 0, n, "row", wording=canonical) for n in range(50)} == {"What genre is this music?"}
    bare = Wording(bare_share=1.0)
    assert {draw("genre", {}, 0, n, "row", wording=bare) for n in range(50)} == set(find_form("genre").bare)
    no_phrases = Wording(instructions="canonical")
    assert {draw("genre", {}, 0, n, "row", wording=no_phrases) for n in range(50)} == {"What genre is this music?"}
    tag = Wording(instructions="tag", phrases=3)
    assert {draw("genre", {}, 0, n, "row", wording=tag) for n in range(50)} == {find_form("genre").bare[0]}
    # A task without bare lines is asked in its canonical phrase; a blank that nothing fills takes the next line.
    assert draw("qa", {"question": "Who laughs?"}, 0, 0, "row", wording=tag) == "Who laughs?"
    assert draw("asr", {}, 0, 0, "row", wording=tag) == "ASR."
    kinds = ("jazz", "rock")
    assert not any("jazz" in draw("genre", {}, 0, n, "row", options=kinds) for n in range(100))
    half = [draw("genre", {}, 0, n, "row", wording=Wording(options_prob=0.5), options=kinds) for n in range(1000)]
    assert 0.44 < sum(text.endswith(" Options: jazz, rock.") for text in half) / 1000 < 0.56


def test_an_unknown_task_or_form_is_refused_with_a_hint() -> None:
    with pytest.raises(UsageError, match="sound_cls"):
        draw("sound_clss", {}, 0, 0, "row")
    with pytest.raises(UsageError, match="form 'digits'"):
        draw("keyword", {"form": "digits"}, 0, 0, "row")


def test_a_row_is_asked_with_its_own_question_and_one_of_its_answers() -> None:
    audio = AudioRef("a.tar", "0.flac", 512, 1, "00" * 32)
    fields = ("d", "train", "c", "sound", "CC0", None, 1.0, audio)
    own = Row("d/c:caption", *fields, "caption", "What barks?", {}, ("A dog.", "A fox."))
    questions = {ask(own, 0, epoch) for epoch in range(50)}
    assert {question.instruction for question in questions} == {"What barks?"}
    assert {question.answer for question in questions} == {"A dog.", "A fox."}
    tags = Row("d/c:tagging", *fields, "tagging", None, {}, ("dog; rain; wind",))
    asked = [ask(tags, 0, epoch) for epoch in range(100)]
    assert len({question.answer for question in asked}) == 6
    assert {tuple(sorted(question.answer.split("; "))) for question in asked} == {("dog", "rain", "wind")}
    assert len({question.instruction for question in asked}) > 8
