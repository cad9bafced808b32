"""Own data in folders: one sub-folder per class, or folders for splits or folds that contain those.

Every file that libsndfile reads is a clip, whatever its suffix. Files that are not are counted, never dropped silently.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from uwbench.audio.clip import AudioFile, Clip
from uwbench.cards.card import Domain
from uwbench.errors import AudioError, InputError
from uwbench.options import TaskSpec
from uwbench.sources.dataset import AUDIO_SUFFIXES, Dataset, require_utf8, spelling_notes
from uwbench.sources.folds import HASH_FOLDS, deal
from uwbench.sources.own_card import make_card, task_name
from uwbench.sources.splits import SPLIT_NAMES
from uwbench.sources.table import MANIFEST_NAMES

_FOLD_FOLDER = re.compile(r"fold[ _-]?0*(\d+)")
# A word in a folder's name that makes it look like a split or a fold.
_UNCLEAR = re.compile(
    r"(?<![a-z])((train|training|test|testing|val|valid|validation|dev|eval|evaluation|fold)(set|data|s)?|unlabell?ed)"
    r"(?![a-z])"
)
_UNLABELED = re.compile(r"unlabell?ed")
_IGNORED = (".DS_Store", "Thumbs.db", "desktop.ini")
_WAY_OUT = (
    "name the folders train, valid and test, or fold1, fold2, ..., with one sub-folder per class in each, and move "
    f"others elsewhere; or write a {MANIFEST_NAMES[0]} with the columns path, label and split"
)
Parts = dict[str, tuple[str, str]]  # sub-folder -> "split" or "fold", and its name
Classes = dict[str, dict[str, list[Path]]]  # sub-folder -> class folder in it -> audio files
Tally = Counter[tuple[str, str]]  # (suffix, reason) -> files that are not clips


def open_folder(folder: Path, spec: TaskSpec) -> Dataset:
    """Read a folder with one sub-folder per class, or with folders of splits or folds that contain those.

    Without splits, the clips of each class are dealt into five folds in the order of the sha256 of their paths. The
    folds are the same on every machine, and adding files to one class changes no other class's folds.
    """
    tally: Tally = Counter()
    files_of: dict[str, list[Path]] = {}
    notes: list[str] = []
    for path, kind in _entries(folder, tally):
        if kind == "folder":
            files = sorted(_audio_below(path, [os.path.realpath(folder)], tally))
            if files:
                files_of[path.name] = files
            else:
                notes.append(f"the sub-folder {path} contains no audio")
        elif kind == "file":
            _leave_out(path, tally, "beside the sub-folders")
    classes_of = {name: _classes(folder / name, files) for name, files in files_of.items()}
    parts = {name: part for name in files_of if classes_of[name] and (part := _part(name))}
    if parts:
        _refuse_unclear_parts(folder, parts, classes_of)
        clips = list(_clips_of_parts(folder, parts, classes_of))
        taken = {file for name in parts for files in classes_of[name].values() for file in files}
        for name, files in files_of.items():
            where = "beside the class folders" if name in parts else "beside the folders of splits"
            for file in set(files) - taken:
                _leave_out(file, tally, where)
        how = f"{next(iter(parts.values()))[0]}s by sub-folder"
    else:
        _refuse_unclear_classes(folder, classes_of)
        notes += [
            f"the sub-folder {folder / name} holds no class folders: it is a class" for name in files_of if _part(name)
        ]
        clips = list(_clips_of_classes(folder, files_of))
        how = f"no splits given: {HASH_FOLDS} folds by hash of the paths, stratified by class"
    if tally:
        notes.append(f"{folder} holds files that are not clips: {_listed(tally)}")
    if not clips:
        raise InputError(
            "has no sub-folder with audio" + (f"; it holds {_listed(tally)}" if tally else ""),
            where=folder,
            remedy=f"add one sub-folder per class, or a {MANIFEST_NAMES[0]}",
        )
    name, domain = task_name(spec.name, folder), cast(Domain, str(spec.domain))
    card = make_card(clips, name=name, kind="single-label", domain=domain, where=folder, taken_from=spec.taken_from)
    return Dataset(card, tuple(clips), f"folder {folder} ({how})", (*notes, *spelling_notes(clips, "single-label")))


def _clips_of_parts(folder: Path, parts: Parts, classes_of: Classes) -> Iterator[Clip]:
    for name, (field, value) in parts.items():
        split, fold = (value, None) if field == "split" else (None, value)
        for label, files in classes_of[name].items():
            for file in files:
                yield Clip(_relative(file, folder), AudioFile(file), label, split, fold)


def _clips_of_classes(folder: Path, files_of: dict[str, list[Path]]) -> Iterator[Clip]:
    for label, files in files_of.items():
        for name, fold in deal(label, [_relative(file, folder) for file in files]).items():
            yield Clip(name, AudioFile(folder / name), label, fold=fold)


def _part(name: str) -> tuple[str, str] | None:
    """Return ("split", its name) or ("fold", its name) if a folder's name stands for one."""
    fold = _FOLD_FOLDER.fullmatch(name.lower())
    split = SPLIT_NAMES.get(name.lower())
    return ("fold", fold[1]) if fold else ("split", split) if split else None


def _classes(child: Path, files: list[Path]) -> dict[str, list[Path]]:
    """Return the files in each sub-folder of `child`, by its name; files of `child` itself are left out."""
    classes: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        inner = file.relative_to(child).parts
        if len(inner) > 1:
            classes[inner[0]].append(file)
    return dict(classes)


def _refuse_unclear_parts(folder: Path, parts: Parts, classes_of: Classes) -> None:
    """Raise InputError if it cannot be told which split a folder with audio belongs to."""
    labels = {label for name in parts for label in classes_of[name]}
    beside = [name for name in classes_of if name not in parts]
    unclear = [
        name for name in beside if _part(name) or _UNCLEAR.search(name.lower()) or labels & set(classes_of[name])
    ]
    if unclear:
        names = ", ".join(map(repr, unclear))
        what = f"holds {names} beside {', '.join(map(repr, parts))}, and it is not clear which split that is"
        raise InputError(what, where=folder, remedy=_WAY_OUT)
    if len({field for field, _ in parts.values()}) == 2:
        raise InputError(f"holds folders of folds and of splits ({', '.join(parts)})", where=folder, remedy=_WAY_OUT)
    first: dict[str, str] = {}
    for name, (_, value) in parts.items():
        if first.setdefault(value, name) != name:
            what = f"holds {first[value]!r} and {name!r}, which both mean {value!r}"
            raise InputError(what, where=folder, remedy=_WAY_OUT)


def _refuse_unclear_classes(folder: Path, classes_of: Classes) -> None:
    """Raise InputError if the sub-folders may be splits, or may contain splits, so that their names are no labels."""
    unclear = [name for name in classes_of if _part(name) or _UNCLEAR.search(name.lower())]
    nested = [name for name in unclear if classes_of[name]]
    certain = [name for name in unclear if _part(name) or _UNLABELED.search(name.lower())]
    unlabeled = any(_UNLABELED.search(name.lower()) for name in unclear)
    if unclear and (unlabeled or len(unclear) == len(classes_of) or len(nested) > 1 or len(certain) > 1):
        what = f"holds {', '.join(map(repr, unclear))}, whose names look like splits and not like classes"
        raise InputError(what, where=folder, remedy=_WAY_OUT)
    inner = {name for classes in classes_of.values() for name in classes if _part(name)}
    if len(inner) > 1:
        what = f"holds {', '.join(map(repr, sorted(inner)))} inside its class folders"
        raise InputError(what, where=folder, remedy=_WAY_OUT)


def _audio_below(folder: Path, above: list[str], tally: Tally) -> Iterator[Path]:
    """Yield the audio files below `folder`, links followed; count the other files in `tally`."""
    real = os.path.realpath(folder)
    if real in above:
        tally["", "link to a folder above it"] += 1
        return
    for path, kind in _entries(folder, tally):
        if kind == "folder":
            yield from _audio_below(path, [*above, real], tally)
        elif kind == "file":
            if path.suffix.lower() in AUDIO_SUFFIXES or _is_audio(path):
                yield path
            else:
                _leave_out(path, tally, "not audio that libsndfile reads")


def _entries(folder: Path, tally: Tally) -> Iterator[tuple[Path, str]]:
    """Yield a folder's entries by name, each "folder", "file" or neither; the last are counted in `tally`."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        tally["", f"folder that cannot be read ({error.strerror})"] += 1
        return
    for path in entries:
        if path.name.startswith(("._", "__MACOSX")) or path.name in _IGNORED:
            continue
        if path.name.startswith("."):
            _leave_out(path, tally, "hidden")
        elif path.is_dir():
            yield path, "folder"
        elif path.is_file():
            yield path, "file"
        else:
            _leave_out(path, tally, "broken link" if path.is_symlink() else "not a regular file")


def _is_audio(path: Path) -> bool:
    from uwbench.audio.decode import read_header

    try:
        return read_header(AudioFile(path)).n_frames > 0
    except AudioError:
        return False


def _leave_out(path: Path, tally: Tally, reason: str) -> None:
    tally[path.suffix.lower(), reason] += 1


def _listed(tally: Tally) -> str:
    """Return the counts of files that are not clips in one line, e.g. "58 .txt (not audio that libsndfile reads)"."""
    kinds = sorted(tally.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {suffix or 'without suffix'} ({reason})" for (suffix, reason), count in kinds)


def _relative(file: Path, folder: Path) -> str:
    name = file.relative_to(folder).as_posix()
    require_utf8(name, folder)
    return name
