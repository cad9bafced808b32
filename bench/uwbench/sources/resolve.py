"""From what the user wrote to the clips of a task: a card's name, a card file, a manifest or a folder.

A bare name is a card before it is a folder; `./name` is always a folder. A card's data are looked for under `--data`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

from uwbench.base.registry import suggestion
from uwbench.cards.card import Card, Domain, Kind
from uwbench.cards.find import find_card, find_cards, load_card, tasks_folder
from uwbench.errors import DataError, InputError, UsageError
from uwbench.sources.dataset import Dataset, Reading, with_unique_ids
from uwbench.sources.hub import find_parquet, read_hub
from uwbench.sources.layouts import LAYOUTS, load_layout
from uwbench.sources.layouts.base import locate, with_real_names
from uwbench.sources.shards import Part, find_shards, read_shards
from uwbench.sources.table import MANIFEST_NAMES, MANIFEST_SUFFIXES, open_folder, open_manifest

CARD_SUFFIXES = (".yaml", ".yml")
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".7z", ".tar.bz2", ".rar")


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a card's data are, as `describe_task` sees it without reading them."""

    found: str | None  # the source as `Dataset.source` would name it, or None
    looked: tuple[str, ...]  # the folders that were looked at


def open_task(
    task: str,
    *,
    data: Path | None = None,
    label: str | None = None,
    group: str | None = None,
    name: str | None = None,
    kind: str | None = None,
    domain: str = "sound",
    allow_outside: bool = False,
) -> Dataset:
    """Return the clips of `task`: a card's name, a card file, a manifest, or a folder.

    `data` is the folder that holds one folder a task. The other options shape own data (manifests and folders): the
    columns of label and group, the task's name, its kind and its domain. Raises UsageError for an unknown name or an
    option that does not apply, InputError for a malformed file, DataError where a card's data are not at hand.
    """
    path = Path(task)
    if not is_own_data(task):
        card = load_card(path) if path.suffix.lower() in CARD_SUFFIXES else find_card(task)
        _refuse_own_options(task, label, group, name, kind)
        return open_card(card, data)
    own_kind = _choice(kind or "single-label", "--kind", get_args(Kind))
    own_domain = cast(Domain, _choice(domain, "--domain", get_args(Domain)))
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        opened = open_manifest(
            path,
            label=label,
            group=group,
            name=name,
            kind=cast(Kind, own_kind),
            domain=own_domain,
            allow_outside=allow_outside,
        )
        return _with_notes(opened, _same_name(opened.card))
    if not path.is_dir():
        raise InputError("is not a folder, a manifest or a card", where=task, remedy="see: uwbench tasks")
    for manifest in MANIFEST_NAMES:
        if (path / manifest).is_file():
            return open_task(
                str(path / manifest),
                label=label,
                group=group,
                name=name,
                kind=kind,
                domain=domain,
                allow_outside=allow_outside,
            )
    if label is not None or group is not None or own_kind != "single-label":
        raise UsageError("--label, --group and --kind need a manifest", where=task)
    opened = open_folder(path, name=name, domain=own_domain)
    return _with_notes(opened, [*_same_name(opened.card), *_known_layout(path)])


def _with_notes(dataset: Dataset, notes: Iterable[str]) -> Dataset:
    return replace(dataset, problems=(*dataset.problems, *notes))


def _same_name(card: Card) -> Iterator[str]:
    if (tasks_folder() / f"{card.name}.yaml").is_file():
        yield f"the name {card.name!r} is also a built-in card's; --name tells the two apart on a leaderboard"


def _known_layout(folder: Path) -> Iterator[str]:
    """Own folders are read by their names alone, which for a known dataset may be speakers or parts, not classes."""
    for name in LAYOUTS.entries():
        if load_layout(name).is_root(folder):
            yield f"the folder looks like {name} as its publisher ships it; that task is -t {name} --data {folder}"


def is_own_data(task: str) -> bool:
    """Say whether `task` is a manifest or a folder, to which the options that shape own data apply."""
    path = Path(task)
    if path.suffix.lower() in CARD_SUFFIXES:
        return False
    if path.suffix.lower() in MANIFEST_SUFFIXES or "/" in task or "\\" in task or task in (".", ".."):
        return True
    return path.is_dir() and task not in find_cards()[0]


def open_card(card: Card, data: Path | None) -> Dataset:
    """Return the clips of a card from the first of its sources that is at hand; raise DataError where none is."""
    try:
        if card.sources.generated is not None:
            from uwbench.sources.generated import generate

            clips = tuple(generate(card.sources.generated))
            return Dataset(card, clips, f"generated {card.sources.generated}", origin="generated")
        found = _find(card, data)
    except UsageError as error:  # the card names a layout or a generated set that there is not
        raise InputError(error.what, where=card.name, remedy=error.remedy) from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=error.filename or card.name) from error
    if found is None:
        raise DataError("its data are not at hand", where=card.name, remedy=_remedy(card, data))
    return found


def _find(card: Card, data: Path | None) -> Dataset | None:
    for folder in card_folders(card, data):
        parts = find_shards(card, folder)
        if parts is not None:
            reading = read_shards(card, parts)
            source = f"X-ARES shards in {_home(parts)}"
            return _with_notes(
                Dataset(card, reading.clips, source, reading.problems, "shards"), _groupless(card, reading)
            )
        root = _root(card, folder)
        if root is not None:
            return _read_layout(card, root)
        files = find_parquet(card, folder)
        if files is not None:
            reading = read_hub(card, folder, files)
            return Dataset(card, reading.clips, f"Hugging Face dataset in {folder}", reading.problems, "hub")
    if data is not None and _root(card, data, depth=0) is not None:  # --data names the dataset's own folder
        return _read_layout(card, data)
    return None


def _groupless(card: Card, reading: Reading) -> Iterator[str]:
    if card.group is not None and not any(clip.group for clip in reading.clips):
        yield f"the shards do not tell the group ({card.group}): validation and intervals treat clips as independent"


def _root(card: Card, folder: Path, depth: int = 3) -> Path | None:
    if card.sources.layout is None or not folder.is_dir():
        return None
    return locate(load_layout(card.sources.layout), folder, depth=depth)


def _read_layout(card: Card, root: Path) -> Dataset:
    assert card.sources.layout is not None
    layout = load_layout(card.sources.layout)
    reading = layout.read(root, card)
    if not reading.clips:
        raise DataError(f"holds no clips; expected: {layout.expects}", where=root)
    named, mended = with_real_names(reading.clips)
    clips, repeated = with_unique_ids(named)
    problems = list(reading.problems)
    if mended:
        problems.append(f"{mended} files differ from their listed names in case or space, and are taken for them")
    if repeated:
        problems.append(f"{len(repeated)} clips are listed more than once, first {repeated[0]!r}")
    return Dataset(card, clips, f"publisher's files in {root}", tuple(problems), "publisher")


def _home(parts: tuple[Part, ...]) -> Path:
    return next(part.files[0].parent for part in parts if part.files)


def describe_task(card: Card, data: Path | None) -> Whereabouts:
    """Say where a card's data are, or where they were looked for, from folder listings alone."""
    if card.sources.generated is not None:
        return Whereabouts(f"generated {card.sources.generated}", ())
    folders = card_folders(card, data)
    looked = tuple(str(folder) for folder in folders)
    for folder in folders:
        parts = find_shards(card, folder)
        if parts is not None:
            return Whereabouts(f"X-ARES shards in {_home(parts)}", looked)
        root = _root(card, folder)
        if root is not None:
            return Whereabouts(f"publisher's files in {root}", looked)
        if find_parquet(card, folder) is not None:
            return Whereabouts(f"Hugging Face dataset in {folder}", looked)
    if data is not None and _root(card, data, depth=0) is not None:
        return Whereabouts(f"publisher's files in {data}", looked)
    return Whereabouts(None, looked or (() if data is None else (str(data / card.name),)))


def card_folders(card: Card, data: Path | None) -> list[Path]:
    """Return the folders under `data` that may hold a card's data, best first.

    Their names are the card's, X-ARES's, the title or the publisher's; letters' case and the signs between them do not
    count, so that `ESC-50` is found for `esc50`.
    """
    if data is None or not data.is_dir():
        return []
    names = [card.name, card.title] + ([card.sources.shards.folder] if card.sources.shards else [])
    names += load_layout(card.sources.layout).folders if card.sources.layout else ()
    wanted = [_plain(name) for name in names]
    found = [path for path in sorted(data.iterdir()) if _plain(path.name) in wanted and path.is_dir()]
    return sorted(found, key=lambda path: wanted.index(_plain(path.name)))  # stable: by name within a rank


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _remedy(card: Card, data: Path | None) -> str:
    for folder in card_folders(card, data):
        packed = sorted(path for path in folder.iterdir() if path.name.lower().endswith(ARCHIVES))
        if packed:
            return f"unpack {packed[0]} there first"
    expects = f" ({load_layout(card.sources.layout).expects})" if card.sources.layout else ""
    fetch = f", or run: uwbench data fetch {card.name}" if card.sources.shards else ""
    if data is None:
        return f"say with --data DIR where DIR/{card.name} is{expects}{fetch}"
    return f"put them in {data / card.name}{expects}{fetch}"


def _refuse_own_options(task: str, label: str | None, group: str | None, name: str | None, kind: str | None) -> None:
    given = {"--label": label, "--group": group, "--name": name, "--kind": kind}
    used = [option for option, value in given.items() if value is not None]
    if used:
        raise UsageError(f"{', '.join(used)} shape own data, and {task!r} is a card", where=task)


def _choice(value: str, option: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise UsageError(
            f"{value!r} is not one of {', '.join(allowed)}", where=option, remedy=suggestion(value, allowed)
        )
    return value
