"""The built-in cards against the published facts of X-ARES 0.1.3."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from uwbench.cache.clip_table import ClipTable, read_table, table_path, write_table
from uwbench.cards.card import Card
from uwbench.cards.find import find_card, find_cards, find_suite, load_vocabulary
from uwbench.sources.layouts import LAYOUTS, load_layout

PUBLIC = find_suite("xares-22").tasks

# name: (X-ARES's folder, Zenodo record, classes, weight, epochs, training batch, selects on test data, kNN)
FACTS = {
    "asvspoof2015": ("asvspoof2015", 14718430, 2, 2000, 5, 64, False, True),
    "clotho": ("clotho", 14856454, None, 1045, 20, 128, False, False),
    "cremad": ("cremad", 14646870, 6, 1116, 10, 32, False, True),
    "desed": ("desed", 14808180, 10, 1153, 10, 32, True, False),
    "esc50": ("esc50", 14614287, 50, 400, 10, 32, True, True),
    "fluentspeechcommands": ("fluentspeechcommands", 14722453, 248, 2000, 10, 32, False, True),
    "fma_small": ("freemusicarchive", 14725056, 8, 800, 3, 32, False, True),
    "fsd50k": ("fsd50k", 14868441, 200, 2000, 10, 64, False, False),
    "fsdkaggle2018": ("fsdkaggle2018", 14725117, 41, 1600, 3, 64, True, False),
    "gtzan": ("gtzan_genre", 14722472, 10, 100, 10, 32, True, True),
    "libricount": ("libricount", 14722478, 11, 1144, 10, 64, True, True),
    "librispeech_asr": ("librispeech", 14716252, None, 10000, 10, 4, False, False),
    "librispeech_mf": ("librispeechmalefemale", 14716252, 2, 2620, 10, 32, False, True),
    "maestro": ("maestro", 14858022, 88, 65, 50, 1, False, False),  # X-ARES has 87: pitch 108 is missing there
    "nsynth": ("nsynthinstument", 14725174, 11, 2000, 10, 32, False, True),
    "ravdess": ("ravdess", 14722524, 8, 360, 10, 32, True, True),
    "speechcommands_v1": ("speechcommandsv1", 14722647, 30, 2000, 10, 64, False, True),
    "urbansound8k": ("urbansound8k", 14722683, 10, 873, 10, 32, True, True),
    "vocalimitation": ("vocalimitations", 14862060, None, 1867, 20, 32, True, True),
    "vocalsound": ("vocalsound", 14722710, 6, 2000, 10, 32, False, True),
    "voxceleb1": ("voxceleb1", 14811963, 1251, 2000, 10, 32, False, True),
    "voxlingua33": ("voxlingua33", 14812245, 33, 1609, 10, 64, True, True),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_card_has_the_published_facts(name: str) -> None:
    card = find_card(name)
    folder, record, classes, weight, epochs, batch, selects_on_test, knn = FACTS[name]
    assert card.sources.shards is not None
    assert (card.sources.shards.folder, card.sources.shards.zenodo) == (folder, record)
    assert (card.weight, card.xares.epochs, card.xares.batch) == (weight, epochs, batch)
    assert (card.xares.selects_on_test, card.xares.knn) == (selects_on_test, knn)
    assert (len(load_vocabulary(card.vocabulary)) if card.vocabulary else None) == classes
    assert card.size is not None
    if card.size.splits is not None:
        assert sum(card.size.splits.values()) == card.size.clips
        assert set(card.size.splits) <= set(card.folds or ("train", "valid", "test"))
    assert card.licence != "unknown"
    assert card.cite != "unknown"
    if card.vocabulary and card.chance and name not in ("asvspoof2015", "cremad", "ravdess", "urbansound8k"):
        assert card.chance == pytest.approx(1 / (classes or 1), abs=5e-4)


def test_suites() -> None:
    twenty = find_suite("uniwhisper-20").tasks
    assert set(PUBLIC) == set(FACTS)
    assert set(PUBLIC) - set(twenty) == {"clotho", "librispeech_asr"}
    assert sum(find_card(name).weight for name in PUBLIC) == 38_752
    assert sum(find_card(name).xares.selects_on_test for name in PUBLIC) == 9
    domains = [find_card(name).domain for name in twenty]
    assert {domain: domains.count(domain) for domain in domains} == {"speech": 11, "sound": 5, "music": 4}


def test_tasks_that_x_ares_selects_on_test_data_have_no_valid_split() -> None:
    cards, errors = find_cards()
    assert errors == []
    for card in cards.values():
        if card.xares.selects_on_test and card.splits is not None:
            assert card.splits.valid is None, card.name


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("splits", {"valid": "validation"}, "splits: valid and test are both 'validation'"),
        ("shards", {"train": "wds-audio"}, r"sources.shards: wds-audio\*.tar and wds-audio-eval\*.tar match the same"),
        ("shards", {"train": "wds-audio-eval"}, "sources.shards.splits: train and test are both 'wds-audio-eval'"),
    ],
)
def test_a_card_whose_selection_data_could_be_test_data_is_refused(
    field: str, change: dict[str, str], message: str
) -> None:
    """Every card is checked when it is loaded, built-in or from a plug-in."""
    fields = find_card("desed").model_dump(mode="json")
    Card.model_validate(fields)
    splits = fields["splits"] if field == "splits" else fields["sources"]["shards"]["splits"]
    splits |= change
    with pytest.raises(ValidationError, match=message):
        Card.model_validate(fields)


@pytest.mark.parametrize("name", sorted(LAYOUTS.entries()))
def test_every_layout_loads_and_is_used(name: str) -> None:
    assert load_layout(name).expects
    assert find_card(name).sources.layout == name


def test_vocabularies_keep_the_order_of_x_ares() -> None:
    """The order matters because some shards store a class's index."""
    esc50 = load_vocabulary("esc50")
    assert (esc50[0], esc50[10], esc50[49]) == ("dog", "rain", "hand_saw")
    assert load_vocabulary("libricount") == tuple(str(k) for k in range(11))
    assert load_vocabulary("urbansound8k")[6] == "gun_shot"
    sentences = load_vocabulary("fluentspeechcommands")
    assert sum("\u2019" in sentence for sentence in sentences) == 3
    assert sum("'" in sentence for sentence in sentences) == 7
    assert list(load_vocabulary("fsd50k")) == sorted(load_vocabulary("fsd50k"))


def test_a_clip_table_with_a_removed_card_field_is_read(tmp_path: Path) -> None:
    """Cards once had a field `crop_s`, and clip tables contain the card they were written with."""
    row = (("a",), (bytes(32),), ("x",), ("train",), (None,), (None,), (1.0,))
    table = ClipTable(find_card("mini_speech"), "here", *row)
    name = write_table(tmp_path, table)
    path = table_path(tmp_path, name)
    content = pq.read_table(path)
    meta = json.loads(content.schema.metadata[b"uwbench"])
    meta["card"]["crop_s"] = None
    pq.write_table(content.replace_schema_metadata({b"uwbench": json.dumps(meta)}), path)
    assert read_table(tmp_path, name) == table
