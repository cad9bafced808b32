"""Real audio as training rows: a few clips of each of the three sets, packed as a user would."""

from __future__ import annotations

import csv
from pathlib import Path

from uniwhisper.data.shards import Asked, Item, Packed, write_shards
from uwbench.api import AudioFile

ASKED = {
    "fsdd": ("speech", "CC BY-SA 4.0", {"keyword": "label", "speaker_id": "speaker"}),
    "esc10": ("sound", "CC BY 3.0", {"sound_cls": "label"}),
    "philharmonia": ("music", "CC BY-SA 3.0", {"instrument": "instrument"}),
}
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
NAMES = dict(zip("0123456789", WORDS, strict=True))


def items(data: Path, dataset: str, count: int, split: str = "train") -> list[Item]:
    """Return `count` clips far apart among those of a split; ESC-10's fold 5 is its test split."""
    domain, licence, tasks = ASKED[dataset]
    with (data / dataset / "manifest.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if _split(row) == split]
    return [
        Item(
            dataset=dataset,
            split=split,
            clip=row["path"],
            domain=domain,
            licence=licence,
            audio=AudioFile(data / dataset / row["path"]),
            asked=tuple(
                Asked(task, (NAMES.get(row[field], row[field].replace("_", " ")),)) for task, field in tasks.items()
            ),
            source=Path(row["path"]).stem,
        )
        for row in rows[:: len(rows) // count][:count]
    ]


def _split(row: dict[str, str]) -> str:
    return row.get("split") or ("test" if row["fold"] == "5" else "train")


def pack(
    data: Path, folder: Path, count: int, *, split: str = "train", datasets: tuple[str, ...] = tuple(ASKED)
) -> Packed:
    """Pack `count` clips of each dataset into `folder`."""
    return write_shards(folder, [item for name in datasets for item in items(data, name, count, split)], name=split)
