"""Answers: labels, transcripts and captions of any dataset in one spelling.

Every function returns text unchanged if it already has its form. Text is NFC with single spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal

from uniwhisper.data.draws import pick, seed_of
from uwbench.api import Event, InputError, Labels

AnswerKind = Literal[
    "transcript",
    "text",
    "caption",
    "label",
    "labels",
    "language",
    "gender",
    "speaker",
    "number",
    "events",
    "note",
    "midi",
]
CLOSED_KINDS: frozenset[AnswerKind] = frozenset({"label", "labels", "language", "gender", "number", "note", "midi"})

SEPARATOR = "; "
_PROSE = ("transcript", "caption", "text")

_INVISIBLE = {0x200B: None, 0x2060: None, 0xFEFF: None}  # joiners stay: some scripts need them
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_GENDERS = {
    "female": ("f", "w", "female", "woman", "feminine", "female_feminine"),
    "male": ("m", "male", "man", "masculine", "male_masculine"),
}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# GigaSpeech writes punctuation and non-speech as tags.
_PUNCTUATION = {"<COMMA>": ",", "<PERIOD>": ".", "<QUESTIONMARK>": "?", "<EXCLAMATIONPOINT>": "!"}
_NO_SPEECH = ("<SIL>", "<NOISE>", "<MUSIC>", "<OTHER>")
_BOILERPLATE = re.compile(
    r"(?:this|the|in this|in the) (?:given )?(?:audio|sound|music|recording|track|clip)(?: clip| recording| track)?,?"
    r"(?: (?:features|contains|captures|presents|consists of|we (?:can )?hear|you (?:can )?hear|there (?:is|are)))? ",
    re.IGNORECASE,
)
_VERBS = re.compile(r"features|contains|captures|presents|consists of|hear|there (?:is|are)|,", re.IGNORECASE)
_NOTE = re.compile(r"([A-Ga-g])([#♯sb♭]?)(-?[0-9])")
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def clean(text: str) -> str:
    """Return text in NFC, without control and zero-width characters, with single spaces and none at the ends."""
    visible = "".join(c for c in text.translate(_INVISIBLE) if c.isspace() or unicodedata.category(c) != "Cc")
    return " ".join(unicodedata.normalize("NFC", visible).split())


def is_corrupt(text: str) -> bool:
    """Return True for garbage: piled-up marks, mostly signs, or one character repeated.

    More than three combining marks in a row; over half of what is no space neither letter, digit nor mark; fewer than
    four different characters in more than ten.
    """
    in_a_row = 0
    for character in text:
        in_a_row = in_a_row + 1 if unicodedata.combining(character) else 0
        if in_a_row > 3:
            return True
    solid = [character for character in text if not character.isspace()]
    words = sum(c.isalnum() or unicodedata.category(c).startswith("M") for c in solid)
    return 2 * words < len(solid) or (len(solid) > 10 and len(set(solid)) < 4)


def label(text: str, names: Mapping[str, str] | None = None) -> str:
    """Return a label as words: as `names` spells it, or in lower case with CamelCase and underscores split."""
    names = names or {}
    text = clean(text)
    if text in names:
        return names[text]
    if text in names.values():
        return text
    words = _CAMEL.sub(" ", text.replace("_", " ").replace(";", ","))
    return clean(clean(words).lower())


def join_labels(labels: Iterable[str], names: Mapping[str, str] | None = None) -> str:
    """Return labels joined by "; ", each once, in the order given."""
    return SEPARATOR.join(dict.fromkeys(name for name in (label(text, names) for text in labels) if name))


def gender(text: str) -> str | None:
    """Return `female` or `male`; None for anything else."""
    text = clean(text).lower()
    return next((name for name, spellings in _GENDERS.items() if text in spellings), None)


def language(text: str, names: Mapping[str, str]) -> str:
    """Return a language's English name, from that name or its code (ISO 639-1 or -3, with or without a region).

    `names` maps codes to names. Raises InputError for a language it does not have.
    """
    text = clean(text)
    by_name = {name.lower(): name for name in names.values()}
    code = re.split(r"[-_]", text.lower())[0]
    name = by_name.get(text.lower()) or names.get(text.lower()) or names.get(code)
    if name is None:
        raise InputError(f"the language {text!r} is not known", remedy="add it to wording/languages.yaml")
    return name


def number(text: str) -> str:
    """Return a count as digits; raise InputError for any other text."""
    text = clean(text).lower()
    if text in _NUMBERS:
        return str(_NUMBERS.index(text))
    if not re.fullmatch(r"[0-9]+", text):
        raise InputError(f"{text!r} is not a count")
    return str(int(text))


def speaker(text: str) -> str:
    """Return a speaker's name or id as `speaker NAME`, or nothing for no text."""
    words = clean(text).split()
    while words and words[0] == "speaker":
        words = words[1:]
    return " ".join(["speaker", *words]) if words else ""


def midi(text: str) -> str:
    """Return a note, `A#3`, `As3`, `Bb3` or `58`, as its MIDI number (C4 is 60); raise InputError for other text."""
    text = clean(text)
    if re.fullmatch(r"[0-9]{1,3}", text):
        number = int(text)
    else:
        parts = _NOTE.fullmatch(text)
        if parts is None:
            raise InputError(f"{text!r} is not a note")
        step = _STEPS[parts[1].upper()] + {"": 0, "b": -1, "♭": -1}.get(parts[2], 1)
        number = 12 * (int(parts[3]) + 1) + step
    if not 0 <= number <= 127:
        raise InputError(f"{text!r} is not a note from 0 to 127 in MIDI")
    return str(number)


def note(text: str) -> str:
    """Return a note as its name with sharps and octave, `A#3`; raise InputError for any other text."""
    number = int(midi(text))
    return f"{_NAMES[number % 12]}{number // 12 - 1}"


def transcript(text: str, *, lower: bool = False) -> str | None:
    """Return a transcript with GigaSpeech's tags as punctuation; None if it says that nobody speaks.

    `lower` is for datasets written in capitals throughout.
    """
    if any(tag in text for tag in _NO_SPEECH):
        return None
    for tag, sign in _PUNCTUATION.items():
        text = re.sub(rf"\s*{tag}", sign, text)
    text = clean(text)
    return clean(text.lower()) if lower else text


def caption(text: str) -> str | None:
    """Return a caption with a capital first letter and a final full stop, without phrases like "this audio contains".

    None where nothing else is left.
    """
    text = clean(text)
    while (start := _BOILERPLATE.match(text)) and _VERBS.search(start[0]):
        text = text[start.end() :].lstrip()
    if not text.strip(" .!?"):
        return None
    text = clean(text[0].upper() + text[1:])
    return text if text.endswith((".", "!", "?", "。")) else text + "."


def events(timed: Iterable[Event], names: Mapping[str, str] | None = None) -> str:
    """Return events as `0.0-1.2 dog; 3.4-9.9 speech`, on a grid of 0.1 s, by onset; each lasts at least 0.1 s."""
    ticks = []
    for event in timed:
        first = round(event.onset_s * 10)
        ticks.append((first, max(first + 1, round(event.offset_s * 10)), label(event.label, names)))
    return SEPARATOR.join(f"{first / 10:.1f}-{last / 10:.1f} {name}" for first, last, name in sorted(set(ticks)))


def normalise(
    kind: AnswerKind,
    labels: Labels,
    *,
    names: Mapping[str, str] | None = None,
    languages: Mapping[str, str] | None = None,
    lower: bool = False,
) -> tuple[str, ...]:
    """Return the correct answers that a clip's labels give, possibly none.

    `names` spells labels, `languages` codes. Events that are asked as `labels` are their labels. Raises InputError
    where the labels are not of this kind.
    """
    if kind == "events":
        timed = [item for item in labels if isinstance(item, Event)]
        if isinstance(labels, str) or len(timed) < len(labels):
            raise InputError("has texts where events are needed")
        return _usable([events(timed, names)])
    if kind == "labels" and not isinstance(labels, str):
        return _usable([join_labels((item if isinstance(item, str) else item.label for item in labels), names)])
    texts = [labels] if isinstance(labels, str) else [item for item in labels if isinstance(item, str)]
    if not isinstance(labels, str) and len(texts) < len(labels):
        raise InputError("has events where texts are needed")
    if kind == "labels":
        return _usable([join_labels(texts, names)])
    spell: dict[str, Callable[[str], str | None]] = {
        "label": partial(label, names=names),
        "language": partial(language, names=languages or {}),
        "gender": gender,
        "speaker": speaker,
        "number": number,
        "note": note,
        "midi": midi,
        "transcript": partial(transcript, lower=lower),
        "caption": caption,
        "text": clean,
    }
    answers = _usable(map(spell[kind], texts))
    return tuple(answer for answer in answers if not is_corrupt(answer)) if kind in _PROSE else answers


def draw_answer(answers: Sequence[str], kind: AnswerKind, seed: int, epoch: int, row_id: str) -> str:
    """Return one of a row's answers, lists in a new order each epoch; a pure function of its arguments."""
    answer = answers[pick(len(answers), seed, epoch, row_id, "answer")]
    return list_labels([answer], seed, epoch, row_id) if kind == "labels" else answer


def list_labels(answers: Sequence[str], seed: int, epoch: int, row_id: str) -> str:
    """Return the labels of all answers as one list, each once, in a new order each epoch; pure in its arguments."""
    names = dict.fromkeys(name for answer in answers for name in answer.split(SEPARATOR))
    return SEPARATOR.join(sorted(names, key=lambda name: seed_of(seed, epoch, row_id, "order", name)))


def _usable(texts: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))
