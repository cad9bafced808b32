"""Answers: one spelling, stable under repetition; garbage is recognised."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniwhisper.data.answers import (
    caption,
    clean,
    draw_answer,
    events,
    gender,
    is_corrupt,
    join_labels,
    label,
    language,
    midi,
    normalise,
    note,
    number,
    speaker,
    transcript,
)
from uniwhisper.data.facts import facts_of, language_names
from uwbench.api import Event, InputError

ROOT = Path(__file__).resolve().parents[3]
WORDS = st.text() | st.from_regex(r"[A-Za-z_;<> .]{0,20}", fullmatch=True)
TAGGED = st.lists(st.sampled_from(["<COMMA>", "<PERIOD>", "<QUESTIONMARK>", "HELLO", "You", " ", "<", ">", "COMMA"]))


@given(WORDS)
def test_clean_text_stays_as_it_is(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == once.strip()
    assert "  " not in once
    assert not any(unicodedata.category(character) == "Cc" for character in once)


@given(WORDS)
def test_a_label_stays_as_it_is(text: str) -> None:
    once = label(text)
    assert label(once) == once
    assert not {"_", ";"} & set(once)


@given(st.lists(WORDS))
def test_each_label_appears_once(texts: list[str]) -> None:
    once = join_labels(texts)
    parts = once.split("; ") if once else []
    assert join_labels(parts) == once
    assert len(set(parts)) == len(parts)


@given(WORDS | TAGGED.map("".join), st.booleans())
def test_a_transcript_stays_as_it_is(text: str, lower: bool) -> None:
    once = transcript(text, lower=lower)
    if once is not None:
        assert transcript(once, lower=lower) == once
        assert not any(tag in once for tag in ("<COMMA>", "<PERIOD>"))


@given(WORDS | st.lists(st.sampled_from(["This audio clip features", "the sound of", " ", "a dog", "."])).map("".join))
def test_a_caption_stays_as_it_is(text: str) -> None:
    once = caption(text)
    if once is not None:
        assert caption(once) == once
        assert once.endswith((".", "!", "?", "。"))
        assert unicodedata.is_normalized("NFC", once)


@given(st.integers(0, 127))
def test_notes_and_their_numbers_are_each_others_inverse(key: int) -> None:
    name = note(str(key))
    assert midi(name) == str(key)
    assert note(name) == name
    assert midi(midi(name)) == midi(name)


@given(st.text(max_size=8))
def test_speakers_stay_as_they_are(text: str) -> None:
    assert speaker(speaker(text)) == speaker(text)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("dog_bark", "dog bark"),
        ("DogBark", "dog bark"),
        ("TVShow", "tv show"),
        ("Hi-hat", "hi-hat"),
        ("Accelerating_and_revving_and_vroom", "accelerating and revving and vroom"),
        ("  Cafe\u0301 ", "café"),
        ("0", "0"),
    ],
)
def test_labels_become_words(given: str, wanted: str) -> None:
    assert label(given) == wanted


def test_a_datasets_own_words_come_first_and_are_kept() -> None:
    names = facts_of("philharmonia").names("instrument")
    assert label("french-horn", names) == "French horn" == label("French horn", names)
    assert label("saxophone", names) == "saxophone"


@pytest.mark.parametrize(("given", "wanted"), [("C4", "60"), ("A4", "69"), ("As3", "58"), ("Bb3", "58"), ("Cb4", "59")])
def test_notes_have_the_numbers_of_midi(given: str, wanted: str) -> None:
    assert midi(given) == wanted


def test_sharps_name_notes() -> None:
    assert [note(text) for text in ("As3", "Bb3", "a#3", "58")] == ["A#3"] * 4


@pytest.mark.parametrize("given", ["H4", "C", "128", "C10", ""])
def test_a_text_that_is_not_a_note_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="note"):
        note(given)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("zh-CN", "Chinese"), ("cmn_hans_cn", "Chinese"), ("yue", "Chinese"), ("de", "German"), ("german", "German")],
)
def test_languages_are_named_in_english(given: str, wanted: str) -> None:
    assert language(given, language_names()) == wanted


def test_a_language_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="tlh"):
        language("tlh", language_names())


def test_every_language_of_the_benchmarks_task_has_a_name() -> None:
    listed = ROOT / "tasks" / "labels" / "voxlingua33.txt"
    codes = listed.read_text(encoding="utf-8").split()
    assert len({language(code, language_names()) for code in codes}) == len(codes) == 33


def test_genders_are_two_words_or_none() -> None:
    assert [gender(text) for text in ("F", "male", "M", "female_feminine", "other", "")] == [
        "female",
        "male",
        "male",
        "female",
        None,
        None,
    ]


def test_counts_are_digits() -> None:
    assert [number(text) for text in ("three", "03", "10")] == ["3", "3", "10"]
    with pytest.raises(InputError, match="many"):
        number("many")


def test_tags_of_transcripts_become_punctuation_or_drop_them() -> None:
    assert transcript("WELL <COMMA> YES <QUESTIONMARK>", lower=True) == "well, yes?"
    assert transcript("<MUSIC>") is None


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("a dog  barks", "A dog barks."),
        ("This audio clip features a dog barking", "A dog barking."),
        ("In this recording, rain falls!", "Rain falls!"),
        ("The sound of rain", "The sound of rain."),
        ("The music is sad", "The music is sad."),
        ("The recording contains", "The recording contains."),
        ("...", None),
    ],
)
def test_captions_are_sentences_about_the_sound(given: str, wanted: str | None) -> None:
    assert caption(given) == wanted


def test_events_are_on_a_grid_in_order() -> None:
    found = [
        Event(3.44, 9.96, "Speech"),
        Event(0.0, 1.23, "Dog"),
        Event(5.0, 5.01, "Alarm_bell"),
        Event(0.0, 1.2, "Dog"),
    ]
    assert events(found) == "0.0-1.2 dog; 3.4-10.0 speech; 5.0-5.1 alarm bell"


@pytest.mark.parametrize("text", ["a\u0301\u0301\u0301\u0301", "?!?! ..", "aaaaaaaaaaaa", "-- ab --"])
def test_garbage_is_recognised(text: str) -> None:
    assert is_corrupt(text)


@pytest.mark.parametrize("text", ["I don't know.", "नमस्ते दुनिया", "สวัสดีครับ", "你好", "no", "мы здесь"])
def test_text_in_any_script_is_text(text: str) -> None:
    assert not is_corrupt(text)


def test_several_captions_are_several_answers_and_corrupt_ones_none() -> None:
    assert normalise("caption", ("a dog", "A dog.", "a fox", "########")) == ("A dog.", "A fox.")
    with pytest.raises(InputError, match="events"):
        normalise("label", (Event(0, 1, "dog"),))
    with pytest.raises(InputError, match="texts"):
        normalise("events", "dog")


def test_one_answer_of_several_is_drawn_by_hash() -> None:
    drawn = [draw_answer(("a", "b", "c"), "caption", 0, epoch, "row") for epoch in range(3000)]
    assert all(800 < drawn.count(letter) < 1200 for letter in "abc")
    assert drawn == [draw_answer(("a", "b", "c"), "caption", 0, epoch, "row") for epoch in range(3000)]
