"""What is answered: labels, transcripts and captions of any dataset in one spelling.

Every function here gives back what it is given where that is in its form already. Text is NFC with single spaces.
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

_INVISIBLE = {0x200B: None, 0x2060: None, 0xFEFF: None}  # joiners, which some scripts need, stay
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
    kept = "".join(one for one in text.translate(_INVISIBLE) if one.isspace() or unicodedata.category(one) != "Cc")
    return " ".join(unicodedata.normalize("NFC", kept).split())


def is_corrupt(text: str) -> bool:
    """Say whether text is no text: marks piled up, mostly signs, or one character over and over.

    More than three combining marks in a row; over half of what is no space neither letter, digit nor mark; fewer than
    four different characters in more than ten.
    """
    in_a_row = 0
    for one in text:
        in_a_row = in_a_row + 1 if unicodedata.combining(one) else 0
        if in_a_row > 3:
            return True
    solid = [one for one in text if not one.isspace()]
    words = sum(one.isalnum() or unicodedata.category(one).startswith("M") for one in solid)
    return 2 * words < len(solid) or (len(solid) > 10 and len(set(solid)) < 4)


def label(text: str, names: Mapping[str, str] | None = None) -> str:
    """Return a label as words: by `names` where it is in there, else CamelCase and underscores apart, in lower case."""
    names = names or {}
    given = clean(text)
    if given in names:
        return names[given]
    if given in names.values():
        return given
    words = _CAMEL.sub(" ", given.replace("_", " ").replace(";", ","))
    return clean(clean(words).lower())


def join_labels(labels: Iterable[str], names: Mapping[str, str] | None = None) -> str:
    """Return labels joined by "; ", each once, in the order given."""
    return SEPARATOR.join(dict.fromkeys(one for one in (label(text, names) for text in labels) if one))


def gender(text: str) -> str | None:
    """Return `female` or `male`; None for anything else."""
    given = clean(text).lower()
    return next((name for name, ways in _GENDERS.items() if given in ways), None)


def language(text: str, names: Mapping[str, str]) -> str:
    """Return the English name of a language given by that or by its code (ISO 639-1 or -3, with or without a region).

    `names` maps codes to names. Raises InputError for a language it does not have.
    """
    given = clean(text)
    by_name = {name.lower(): name for name in names.values()}
    code = re.split(r"[-_]", given.lower())[0]
    found = by_name.get(given.lower()) or names.get(given.lower()) or names.get(code)
    if found is None:
        raise InputError(f"the language {text!r} is not known", remedy="add it to wording/languages.yaml")
    return found


def number(text: str) -> str:
    """Return a count as digits; raise InputError where it is none."""
    given = clean(text).lower()
    if given in _NUMBERS:
        return str(_NUMBERS.index(given))
    if not re.fullmatch(r"[0-9]+", given):
        raise InputError(f"{text!r} is not a count")
    return str(int(given))


def speaker(text: str) -> str:
    """Return a speaker's name or id as `speaker NAME`, nothing for none."""
    words = clean(text).split()
    while words and words[0] == "speaker":
        words = words[1:]
    return " ".join(["speaker", *words]) if words else ""


def midi(text: str) -> str:
    """Return a note, `A#3`, `As3`, `Bb3` or `58`, as its MIDI number (C4 is 60); raise InputError where it is none."""
    given = clean(text)
    if re.fullmatch(r"[0-9]{1,3}", given):
        found = int(given)
    else:
        parts = _NOTE.fullmatch(given)
        if parts is None:
            raise InputError(f"{text!r} is not a note")
        step = _STEPS[parts[1].upper()] + {"": 0, "b": -1, "♭": -1}.get(parts[2], 1)
        found = 12 * (int(parts[3]) + 1) + step
    if not 0 <= found <= 127:
        raise InputError(f"{text!r} is not a note from 0 to 127 in MIDI")
    return str(found)


def note(text: str) -> str:
    """Return a note as its name with sharps and its octave, `A#3`; raise InputError where it is none."""
    found = int(midi(text))
    return f"{_NAMES[found % 12]}{found // 12 - 1}"


def transcript(text: str, *, lower: bool = False) -> str | None:
    """Return a transcript with GigaSpeech's tags as punctuation; None where it says that nobody speaks.

    `lower` is for datasets written in capitals throughout.
    """
    if any(tag in text for tag in _NO_SPEECH):
        return None
    for tag, sign in _PUNCTUATION.items():
        text = re.sub(rf"\s*{tag}", sign, text)
    found = clean(text)
    return clean(found.lower()) if lower else found


def caption(text: str) -> str | None:
    """Return a caption that begins with a capital, ends with a full stop, and does not say that it is audio.

    None where nothing else is left.
    """
    found = clean(text)
    while (start := _BOILERPLATE.match(found)) and _VERBS.search(start[0]):
        found = found[start.end() :].lstrip()
    if not found.strip(" .!?"):
        return None
    found = clean(found[0].upper() + found[1:])
    return found if found.endswith((".", "!", "?", "。")) else found + "."


def events(found: Iterable[Event], names: Mapping[str, str] | None = None) -> str:
    """Return events as `0.0-1.2 dog; 3.4-9.9 speech`, on a grid of 0.1 s, by onset; each lasts at least 0.1 s."""
    ticks = []
    for event in found:
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
    """Return the answers, each of which is right, that a clip's labels give; none where they give no usable one.

    `names` spells labels, `languages` codes. Events that are asked as `labels` are their labels. Raises InputError
    where the labels are not of this kind.
    """
    if kind == "events":
        timed = [one for one in labels if isinstance(one, Event)]
        if isinstance(labels, str) or len(timed) < len(labels):
            raise InputError("has texts where events are needed")
        return _usable([events(timed, names)])
    if kind == "labels" and not isinstance(labels, str):
        return _usable([join_labels((one if isinstance(one, str) else one.label for one in labels), names)])
    texts = [labels] if isinstance(labels, str) else [one for one in labels if isinstance(one, str)]
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
    found = _usable(map(spell[kind], texts))
    return tuple(one for one in found if not is_corrupt(one)) if kind in _PROSE else found


def draw_answer(answers: Sequence[str], kind: AnswerKind, seed: int, epoch: int, row_id: str) -> str:
    """Return one of a row's answers; lists in an order of their own each epoch. Pure in its arguments."""
    found = answers[pick(len(answers), seed, epoch, row_id, "answer")]
    if kind != "labels":
        return found
    return SEPARATOR.join(sorted(found.split(SEPARATOR), key=lambda one: seed_of(seed, epoch, row_id, "order", one)))


def _usable(found: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one for one in found if one))
