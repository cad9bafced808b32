"""The training rows: three data sets as questions and answers in natural words, several questions a clip."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from uniwhisper_miniature.scored_data import Row, is_scored, read_rows
from uwbench.base.atomic import write_atomically
from uwbench.base.yaml_text import read_yaml_file

MIXTURE = Path(__file__).parent / "mixture.yaml"
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_MOST_CLASSES = 100  # a question of more different answers is no classification, and the control has no head for it


@dataclass(frozen=True, slots=True)
class Heard:
    """A data set that is trained on: its licence, its questions as `COLUMN:TASK[/FORM]`, and a clip's answers."""

    name: str
    domain: str
    licence: str
    ask: tuple[str, ...]
    answers: Callable[[Row], Mapping[str, str]]


@cache
def _words() -> dict[str, dict[str, dict[str, Any]]]:
    return read_yaml_file(Path(__file__).parent / "words.yaml")


def _about_a_sound(row: Row) -> dict[str, str]:
    words = _words()["sounds"][row["label"]]
    return {**{name: words[name] for name in words if name != "captions"}, "caption": json.dumps(words["captions"])}


def _about_a_note(row: Row) -> dict[str, str]:
    manner = {"piano": "softly", "forte": "loudly"}[row["dynamic"]]
    words = _words()["families"][row["family"]]
    return {
        # Columns of labels, of which a clip may have several, are lists.
        "instrument": json.dumps([row["instrument"]]),
        "character": json.dumps([words["character"]]),
        "family": row["family"],
        "origin": words["origin"],
        "note": row["note"],
        "midi": row["midi"],
        "dynamic": row["dynamic"],
        "caption": f"The note {row['note']}, played {manner} on the {row['instrument']}.",
    }


def _about_a_digit(row: Row) -> dict[str, str]:
    return {"digit": row["digit"], "speaker": row["speaker"], "text": _DIGITS[int(row["digit"])]}


HEARD = (
    Heard(
        "urbansound8k",
        "sound",
        "CC BY-NC 3.0",
        (
            *("name:sound_cls", "kind:sound_cls/kind", "place:scene", "origin:sound_cls/origin"),
            *("character:sound_cls/character", "caption:caption"),
        ),
        _about_a_sound,
    ),
    Heard(
        "fluidr3",
        "music",
        "MIT",
        (
            *("instrument:instrument", "family:instrument/family", "origin:instrument/origin", "note:pitch"),
            *("midi:pitch/midi", "dynamic:quality/dynamic", "character:quality", "caption:music_caption"),
        ),
        _about_a_note,
    ),
    Heard("fsdd", "speech", "CC BY-SA 4.0", ("digit:keyword/digit", "speaker:speaker_id", "text:asr"), _about_a_digit),
)


def write_rows(data: Path, folder: Path) -> list[Path]:
    """Write the training rows of every data set, without the clips that are scored, and return the rows' folders."""
    from uniwhisper.data.convert import Request, convert

    folders = []
    for source in HEARD:
        clips = [row for row in read_rows(data, source.name) if not is_scored(source.name, row)]
        manifest = _write_manifest(folder / "manifests" / source.name, data / source.name, source, clips)
        asked = Request(
            source=str(manifest),
            ask=source.ask,
            name=source.name,
            domain=source.domain,
            licence=source.licence,
            allow_outside=True,
        )
        folders.append(folder / source.name)
        convert(asked, folders[-1], workers=1)
    return folders


def _write_manifest(folder: Path, audio: Path, source: Heard, clips: Sequence[Row]) -> Path:
    text = io.StringIO()
    columns = list(source.answers(clips[0]))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "split", "group", *columns])
    for row in clips:
        answers = source.answers(row)
        path = str((audio / row["path"]).resolve())
        writer.writerow([path, "train", row.get("group", ""), *(answers[column] for column in columns)])
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "manifest.csv", text.getvalue().encode())
    return folder / "manifest.csv"


def classes_of(rows: Sequence[Path]) -> dict[str, list[str]]:
    """Return the possible answers to each question of the rows that has at most a hundred: the control's classes."""
    from uniwhisper.data.rows import open_rows

    answers: dict[str, set[str]] = {}
    for row in open_rows(rows):
        answers.setdefault(row.question, set()).update(row.answers)
    return dict(_closed(answers))


def _closed(answers: Mapping[str, set[str]]) -> Iterator[tuple[str, list[str]]]:
    for name in sorted(answers):
        if len(answers[name]) <= _MOST_CLASSES:
            yield name, sorted(answers[name])
