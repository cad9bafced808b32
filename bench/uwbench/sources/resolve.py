"""Find a task's clips: by a card's name, a card file, a manifest or a folder.

A bare name is a card before it is a folder; `./name` is always a folder. A card's data is searched for below `--data`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from uwbench.audio import media
from uwbench.audio.clip import read_head
from uwbench.base.registry import close_names
from uwbench.cards.card import Card
from uwbench.cards.find import find_card, find_cards, load_card, tasks_folder
from uwbench.errors import DataError, InputError, UsageError
from uwbench.options import TaskSpec
from uwbench.sources.dataset import Dataset, Origin, Reading, with_unique_ids
from uwbench.sources.find_form import find_form
from uwbench.sources.folder import open_folder
from uwbench.sources.forms import open_form
from uwbench.sources.hub import find_parquet, read_hub
from uwbench.sources.layouts import LAYOUTS, load_layout
from uwbench.sources.layouts.base import find_root
from uwbench.sources.own_card import manifest_name
from uwbench.sources.real_names import renamed_note, with_real_names
from uwbench.sources.rows import MANIFEST_SUFFIXES
from uwbench.sources.shards import Part, find_shards, read_shards
from uwbench.sources.table import MANIFEST_NAMES, open_manifest

CARD_SUFFIXES = (".yaml", ".yml")
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".7z", ".tar.bz2", ".rar")


def open_task(task: TaskSpec | str | Path, data: Path | None = None) -> Dataset:
    """Return the clips of a task; `data` is the folder that contains one folder per card's dataset.

    Raises UsageError for an unknown name or an option that does not apply, InputError for a malformed file, and
    DataError if a card's data cannot be found.
    """
    spec = task if isinstance(task, TaskSpec) else TaskSpec(task)
    path, source = Path(spec.source), str(spec.source)
    if not is_own_data(source):
        card = load_card(path) if path.suffix.lower() in CARD_SUFFIXES else find_card(source)
        _refuse_options(source, spec.changes(), "can be used with own data only, and this is a card")
        return open_card(card, data)
    manifest = _manifest_of(path)
    if not path.exists():
        what = "is not a folder, a manifest or a card" if manifest is None else "does not exist"
        raise InputError(what, where=source, remedy=_near(path))
    form = find_form(path) if manifest in (None, path) else None
    if form is not None:
        dataset = open_form(form, spec)
        notes = _same_name(dataset.card)
    elif manifest is not None:
        dataset = open_manifest(manifest, spec)
        notes = _same_name(dataset.card)
    elif path.is_dir():
        for_folders = ("name", "domain", "taken_from", "allow_outside")
        used = [
            name for name in spec.changes() if name not in for_folders and (name, spec.kind) != ("kind", "single-label")
        ]
        _refuse_options(source, used, "can be used with a manifest only")
        dataset = open_folder(path, spec)
        notes = [*_same_name(dataset.card), *_known_layout(path)]
    else:
        raise InputError("is not a folder, a manifest or a card", where=source, remedy="see: uwbench tasks")
    return replace(dataset, problems=(*dataset.problems, *notes, *_needs_media(dataset)))


def _needs_media(dataset: Dataset) -> Iterator[str]:
    """Yield a note if clips are in formats whose decoder is not installed."""
    if media.is_installed():
        return
    audios = [clip.audio for clip in dataset.clips if Path(str(clip.audio)).suffix.lower() in media.SUFFIXES]
    counts = Counter(Path(str(audio)).suffix.lower() for audio in audios if media.container(read_head(audio)))
    if counts:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
        yield f"{counts.total()} of {len(dataset.clips)} clips need PyAV to be decoded ({kinds}): {media.REMEDY}"


def _near(path: Path) -> str:
    """Return what to do about a path that does not exist: the files of a similar name beside it, if there are any."""
    try:
        close = close_names(path.name, [other.name for other in path.parent.iterdir()])
    except OSError:
        close = []
    return f"did you mean {path.parent / close[0]}?" if close else "see: uwbench tasks"


def with_name(spec: TaskSpec) -> TaskSpec:
    """Return `spec` with the name of its results, if it is a manifest without one, so that no two share a name."""
    path = Path(spec.source)
    manifest = _manifest_of(path) if is_own_data(str(spec.source)) else None
    if spec.name is None and manifest is None and spec.label is not None and path.is_dir():
        manifest = path / MANIFEST_NAMES[0]  # a form without one
    if spec.name is not None or manifest is None:
        return spec
    tables = [path for path in manifest.parent.glob("*.*") if path.name.lower().endswith(MANIFEST_SUFFIXES)]
    alone = len(tables) < 2 or manifest != Path(spec.source)
    return replace(spec, name=manifest_name(manifest, spec.label, alone=alone))


def is_own_data(task: str) -> bool:
    """Return True if `task` is a manifest or a folder, for which the options for own data are meant."""
    path = Path(task)
    if path.suffix.lower() in CARD_SUFFIXES:
        return False
    if task.lower().endswith(MANIFEST_SUFFIXES) or "/" in task or "\\" in task or task in (".", "..") or path.is_file():
        return True
    return path.is_dir() and task not in find_cards()[0]


def _manifest_of(path: Path) -> Path | None:
    """Return `path` if it is a manifest, or the manifest in the folder `path` if there is one."""
    if path.name.lower().endswith(MANIFEST_SUFFIXES) or path.is_file():
        return path
    manifests = (path / name for name in MANIFEST_NAMES)
    return next((manifest for manifest in manifests if manifest.is_file()), None)


def _same_name(card: Card) -> Iterator[str]:
    if (tasks_folder() / f"{card.name}.yaml").is_file():
        yield f"a built-in card is also named {card.name!r}; use --name to tell the two apart on a leaderboard"


def _known_layout(folder: Path) -> Iterator[str]:
    """Yield a note if the folder is a known dataset, whose sub-folders may be speakers or splits and not classes."""
    for name in LAYOUTS.entries():
        if load_layout(name).is_root(folder):
            yield f"the folder looks like the published dataset {name}; to use that task, run -t {name} --data {folder}"


def open_card(card: Card, data: Path | None) -> Dataset:
    """Return the clips of a card from the first of its sources that exists; raise DataError if none does."""
    try:
        source = next(_sources(card, data), None)
        if source is None:
            raise DataError("cannot find the data", where=card.name, remedy=_remedy(card, data))
        reading = source.read()
    except UsageError as error:  # the card names an unknown layout or generated set
        raise InputError(error.what, where=card.name, remedy=error.remedy) from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=error.filename or card.name) from error
    return Dataset(card, reading.clips, source.description, reading.problems, source.origin)


def describe_source(card: Card, data: Path | None) -> str | None:
    """Return the `Dataset.source` that `open_card` would give, or None, from folder listings alone."""
    source = next(_sources(card, data), None)
    return None if source is None else source.description


@dataclass(frozen=True, slots=True)
class _Source:
    """A place that holds a card's data, not yet read."""

    description: str
    origin: Origin
    read: Callable[[], Reading]


def _sources(card: Card, data: Path | None) -> Iterator[_Source]:
    """Yield the places that hold a card's data, best first; a place is searched only when it is asked for."""
    if card.sources.generated is not None:
        name = card.sources.generated
        yield _Source(f"generated {name}", "generated", partial(_generate, name))
        return
    for folder in card_folders(card, data):
        parts = find_shards(card, folder)
        if parts is not None:
            home = next(part.files[0].parent for part in parts if part.files)
            yield _Source(f"X-ARES shards in {home}", "shards", partial(_read_shards, card, parts))
        root = _find_root(card, folder)
        if root is not None:
            yield _Source(f"publisher's files in {root}", "publisher", partial(_read_layout, card, root))
        files = find_parquet(card, folder)
        if files is not None:
            yield _Source(f"Hugging Face dataset in {folder}", "hub", partial(read_hub, card, folder, files))
    if data is not None and _find_root(card, data, depth=0) is not None:  # --data is the dataset's own folder
        yield _Source(f"publisher's files in {data}", "publisher", partial(_read_layout, card, data))


def _find_root(card: Card, folder: Path, depth: int = 3) -> Path | None:
    if card.sources.layout is None or not folder.is_dir():
        return None
    return find_root(load_layout(card.sources.layout), folder, depth=depth)


def _generate(name: str) -> Reading:
    from uwbench.sources.generated import generate

    return Reading(tuple(generate(name)))


def _read_shards(card: Card, parts: tuple[Part, ...]) -> Reading:
    reading = read_shards(card, parts)
    if card.group is None or any(clip.group for clip in reading.clips):
        return reading
    note = f"the shards do not tell the group ({card.group}): validation and intervals treat clips as independent"
    return Reading(reading.clips, (*reading.problems, note))


def _read_layout(card: Card, root: Path) -> Reading:
    assert card.sources.layout is not None
    layout = load_layout(card.sources.layout)
    reading = layout.read(root, card)
    if not reading.clips:
        raise DataError(f"contains no clips; expected: {layout.expects}", where=root)
    named, renamed = with_real_names(reading.clips, root, may_leave=True)
    clips, repeated = with_unique_ids(named)
    problems = list(reading.problems)
    if renamed:
        problems.append(renamed_note(renamed))
    if repeated:
        problems.append(f"{len(repeated)} clips are listed more than once, first {repeated[0]!r}")
    return Reading(clips, tuple(problems))


def card_folders(card: Card, data: Path | None) -> list[Path]:
    """Return the folders in `data` that may hold a card's data, best first.

    A folder may have the card's name or title, X-ARES's name, or the publisher's. Case and punctuation are ignored, so
    that `ESC-50` matches `esc50`.
    """
    if data is None or not data.is_dir():
        return []
    names = [card.name, card.title] + ([card.sources.shards.folder] if card.sources.shards else [])
    names += load_layout(card.sources.layout).folders if card.sources.layout else ()
    ranks = {_plain(name): rank for rank, name in reversed(list(enumerate(names)))}
    folders = [path for path in sorted(data.iterdir()) if _plain(path.name) in ranks and path.is_dir()]
    return sorted(folders, key=lambda path: ranks[_plain(path.name)])  # stable: by name within a rank


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _remedy(card: Card, data: Path | None) -> str:
    for folder in card_folders(card, data):
        archives = sorted(path for path in folder.iterdir() if path.name.lower().endswith(ARCHIVES))
        if archives:
            return f"unpack {archives[0]} there first"
    expects = f" ({load_layout(card.sources.layout).expects})" if card.sources.layout else ""
    fetch = f", or run: uwbench data fetch {card.name}" if card.sources.shards else ""
    if data is None:
        return f"use --data DIR, where DIR/{card.name} has it{expects}{fetch}"
    return f"put it into {data / card.name}{expects}{fetch}"


def _refuse_options(source: str, names: Iterable[str], reason: str) -> None:
    options = ", ".join("--source" if name == "taken_from" else f"--{name.replace('_', '-')}" for name in names)
    if options:
        raise UsageError(f"{options} {reason}", where=source)
