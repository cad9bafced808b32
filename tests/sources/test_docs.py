"""docs/data.md agrees with the readers."""

from __future__ import annotations

from pathlib import Path

from uwbench.cards.find import find_card, find_suite
from uwbench.sources import check
from uwbench.sources.layouts import load_layout
from uwbench.sources.table import SPLIT_NAMES

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_of_datasets_agrees_with_the_layouts() -> None:
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for name in find_suite("xares-22").tasks:
        card = find_card(name)
        assert card.sources.layout is not None
        assert card.sources.shards is not None
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        layout = load_layout(card.sources.layout)
        assert f"`{layout.expects}`" in row
        assert all(f"`{folder}`" in row for folder in (card.sources.shards.folder, *layout.folders))
    for split in ("validation", "val", "dev"):
        assert SPLIT_NAMES[split] == "valid"
        assert f"`{split}`" in text


def test_every_finding_is_documented() -> None:
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    source = Path(check.__file__).read_text(encoding="utf-8")
    codes = ("count", "missing", "unreadable", "silent", "short", "duplicate", "duplicate-across", "group-across")
    for code in (*codes, "recording-across", "class-untrained", "class-missing", "label-unknown", "event-outside"):
        assert f'"{code}"' in source
        assert f"`{code}`" in text
