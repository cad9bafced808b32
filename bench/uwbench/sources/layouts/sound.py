"""ESC-50, UrbanSound8K, FSD50K, FSDKaggle2018, DESED and Clotho."""

from __future__ import annotations

import re
from pathlib import Path

from uwbench.audio.clip import AudioFile, Clip, Event
from uwbench.base.json_text import parse_json
from uwbench.cards.card import Card
from uwbench.errors import DataError
from uwbench.sources.dataset import Reading
from uwbench.sources.layouts.base import Layout, first_existing, group_from, has, read_table

_ESC_NAME = re.compile(r"(?:^|/)(\d)-(\d+)-([A-Z])-(\d+)$")
_URBANSOUND_NAME = re.compile(r"(?:^|/)(\d+)-(\d)-(\d+)-(\d+)$")
# Y<identifier>_<start>_<end>, in seconds; names in WebDataset tars have no dots.
_YOUTUBE_CUT = re.compile(r"(?:^|/)Y?(.{11})_\d+(?:[._]\d+)?_\d+(?:[._]\d+)?$")
_DESED_CLIP_S = 10.0  # the duration of every clip of DESED
_youtube_id = group_from(_YOUTUBE_CUT)


def _read_esc50(root: Path, _card: Card) -> Reading:
    table = root / "meta" / "esc50.csv"
    return Reading(
        tuple(
            Clip(
                row["filename"],
                AudioFile(root / "audio" / row["filename"]),
                row["category"],
                fold=row["fold"],
                group=row["src_file"],
            )
            for row in read_table(table, ("filename", "fold", "category", "src_file"))
        )
    )


def _read_urbansound(root: Path, _card: Card) -> Reading:
    table = root / "metadata" / "UrbanSound8K.csv"
    return Reading(
        tuple(
            Clip(
                row["slice_file_name"],
                AudioFile(root / "audio" / f"fold{row['fold']}" / row["slice_file_name"]),
                row["class"],
                fold=row["fold"],
                group=row["fsID"],
            )
            for row in read_table(table, ("slice_file_name", "fsID", "fold", "class"))
        )
    )


def _read_fsd50k(root: Path, _card: Card) -> Reading:
    truth = root / "FSD50K.ground_truth"
    rows = [(row, "dev", row["split"]) for row in read_table(truth / "dev.csv", ("fname", "labels", "split"))]
    rows += [(row, "eval", "eval") for row in read_table(truth / "eval.csv", ("fname", "labels"))]
    uploader = {
        part: _uploaders(root / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json") for part in ("dev", "eval")
    }
    split_of = {"train": "train", "val": "valid", "eval": "test"}
    clips = []
    for row, part, split in rows:
        if split not in split_of:
            what = f"clip {row['fname']}: the split {split!r} is neither train nor val"
            raise DataError(what, where=truth / "dev.csv")
        path = root / f"FSD50K.{part}_audio" / f"{row['fname']}.wav"
        labels = tuple(row["labels"].split(","))
        group = uploader[part].get(row["fname"])
        clips.append(Clip(f"{part}/{row['fname']}", AudioFile(path), labels, split=split_of[split], group=group))
    missing = [] if all(uploader.values()) else ["FSD50K.metadata is missing, so that the uploaders are unknown"]
    return Reading(tuple(clips), tuple(missing))


def _uploaders(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        info = parse_json(path.read_text(encoding="utf-8"))
        return {str(name): str(entry["uploader"]) for name, entry in info.items() if entry.get("uploader")}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"is not the expected JSON ({error})", where=path) from error


def _read_fsdkaggle(root: Path, _card: Card) -> Reading:
    tables = (
        ("train", "audio_train", "train_post_competition.csv"),
        ("test", "audio_test", "test_post_competition_scoring_clips.csv"),
    )
    clips = []
    for split, folder, name in tables:
        for row in read_table(root / "FSDKaggle2018.meta" / name, ("fname", "label", "freesound_id")):
            clip_id, path = f"{split}/{row['fname']}", root / f"FSDKaggle2018.{folder}" / row["fname"]
            clips.append(Clip(clip_id, AudioFile(path), row["label"], split=split, group=row["freesound_id"]))
    return Reading(tuple(clips))


def _read_desed(root: Path, _card: Card) -> Reading:
    """Read the weak set as train, with labels that last for the whole clip, and the validation set as test.

    Clips of the validation set without an event are left out, as in X-ARES.
    """
    weak, strong = _desed_table(root, "weak.tsv"), _desed_table(root, "validation.tsv")
    clips: list[Clip] = []
    for row in read_table(weak, ("filename", "event_labels"), delimiter="\t"):
        names = [name.strip() for name in row["event_labels"].split(",") if name.strip()]
        events = tuple(Event(0.0, _DESED_CLIP_S, name) for name in names)
        clips.append(_desed_clip(root / "audio" / "train", "weak", row["filename"], events, "train"))
    events_of: dict[str, list[Event]] = {}
    columns = ("filename", "onset", "offset", "event_label")
    empty = []
    for row in read_table(strong, columns, delimiter="\t"):
        events = events_of.setdefault(row["filename"], [])
        if not row["event_label"]:
            continue
        try:
            event = Event(float(row["onset"]), float(row["offset"]), row["event_label"])
        except ValueError as error:
            raise DataError(f"{row['filename']}: onset and offset must be numbers", where=strong) from error
        if event.offset_s > event.onset_s:
            events.append(event)
        else:
            empty.append(row["filename"])
    for name, events in events_of.items():
        if events:
            folder = root / "audio" / "validation"
            clips.append(_desed_clip(folder, "validation", name, tuple(sorted(events)), "test"))
    without = sum(not events for events in events_of.values())
    problems = [f"{without} clips of {strong.name} have no event and are left out"] if without else []
    problems += [f"{len(empty)} events of {strong.name} have no duration, first in {empty[0]}"] if empty else []
    return Reading(tuple(clips), tuple(problems))


def _desed_table(root: Path, name: str) -> Path:
    return next(iter(sorted((root / "metadata").rglob(name))), root / "metadata" / name)


def _desed_clip(folder: Path, part: str, name: str, events: tuple[Event, ...], split: str) -> Clip:
    file = first_existing(folder, f"{part}/{name}", f"{part}_16k/{name}")
    group = _youtube_id(name.removesuffix(".wav"), None)
    return Clip(f"{part}/{name}", AudioFile(file), events, split=split, group=group)


def _is_desed(folder: Path) -> bool:
    return (folder / "audio").is_dir() and (folder / "metadata").is_dir() and _desed_table(folder, "weak.tsv").is_file()


def _read_clotho(root: Path, card: Card) -> Reading:
    assert card.splits is not None
    clips = []
    columns = tuple(f"caption_{i}" for i in range(1, 6))
    for split, part in card.splits.names().items():
        for row in read_table(root / f"clotho_captions_{part}.csv", ("file_name", *columns)):
            name = f"{part}/{row['file_name']}"
            file = first_existing(root, name, f"clotho_audio_{name}")
            clips.append(Clip(name, AudioFile(file), tuple(row[column] for column in columns), split=split))
    return Reading(tuple(clips))


ESC50 = Layout(
    has("meta/esc50.csv", "audio"),
    _read_esc50,
    expects="meta/esc50.csv; audio/*.wav",
    folders=("ESC-50-master",),
    group_of=group_from(_ESC_NAME, 2, field="src_file"),
)
URBANSOUND8K = Layout(
    has("metadata/UrbanSound8K.csv", "audio"),
    _read_urbansound,
    expects="metadata/UrbanSound8K.csv; audio/fold{1..10}/*.wav",
    group_of=group_from(_URBANSOUND_NAME),
)
FSD50K = Layout(
    has("FSD50K.ground_truth/dev.csv"),
    _read_fsd50k,
    expects="FSD50K.ground_truth/{dev,eval}.csv; FSD50K.{dev,eval}_audio/*.wav",
)
FSDKAGGLE2018 = Layout(
    has("FSDKaggle2018.meta"),
    _read_fsdkaggle,
    expects="FSDKaggle2018.meta/*_post_competition*.csv; FSDKaggle2018.audio_{train,test}/*.wav",
)
DESED = Layout(
    _is_desed,
    _read_desed,
    expects="metadata/.../{weak,validation}.tsv; audio/train/weak, audio/validation/validation",
    folders=("dataset",),
    group_of=_youtube_id,
)
CLOTHO = Layout(
    has("clotho_captions_development.csv"),
    _read_clotho,
    expects="clotho_captions_{development,validation,evaluation}.csv; {development,validation,evaluation}/*.wav",
)
