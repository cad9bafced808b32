"""The miniatures and the cards' counts agree with the published facts; no reader is involved."""

from __future__ import annotations

import json
import re
import tarfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from miniatures import CARDS
from uwbench.cards.find import find_card

# Clips that the publisher counts, in all or in train, valid, test (X-ARES's ten thousandths of VoxLingua included).
COUNTS: dict[str, tuple[int, ...]] = {
    "asvspoof2015": (16375, 53372, 193404),
    "clotho": (3839, 1045, 1045),
    "cremad": (7442,),
    "desed": (1578, 1153),
    "esc50": (400, 400, 400, 400, 400),
    "fluentspeechcommands": (23132, 3118, 3793),
    "fma_small": (6400, 800, 800),
    "fsd50k": (36796, 4170, 10231),
    "fsdkaggle2018": (9473, 1600),
    "gtzan": (1000,),
    "libricount": (5720,),
    "librispeech_asr": (28539, 2703, 2620),
    "librispeech_mf": (28539, 2703, 2620),
    "maestro": (962, 137, 177),
    "nsynth": (289205, 12678, 4096),
    "ravdess": (360, 360, 360, 360),
    "speechcommands_v1": (51088, 6798, 6835),
    "urbansound8k": (8732,),
    "vocalimitation": (5601,),
    "vocalsound": (15570, 1860, 3594),
    "voxceleb1": (138361, 6904, 8251),
    "voxlingua33": (33 * 2000, 1609),
}

# X-ARES 0.1.3: the patterns of its tars, and what it reads of a record's JSON.
SHARDS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "asvspoof2015": (("asvspoof_train*.tar", "asvspoof_valid*.tar", "asvspoof_eval*.tar"), "binary_spoof"),
    "clotho": (("clotho_development*.tar", "clotho_evaluation*.tar", "clotho_validation*.tar"), None),
    "cremad": (("wds-audio-train*.tar", "wds-audio-valid*.tar", "wds-audio-test*.tar"), "label"),
    "desed": (("wds-audio-train*.tar", "wds-audio-eval*.tar"), None),
    "esc50": (tuple(f"wds-audio-fold-{fold}-*.tar" for fold in range(1, 6)), "label"),
    "fluentspeechcommands": (
        ("fluentspeechcommands_train*.tar", "fluentspeechcommands_valid*.tar", "fluentspeechcommands_test*.tar"),
        "transcription",
    ),
    "fma_small": (("fma_small_train*.tar", "fma_small_valid*.tar", "fma_small_test*.tar"), "genre"),
    "fsd50k": (("fsd50k_train*.tar", "fsd50k_validation*.tar", "fsd50k_eval*.tar"), "soundevent"),
    "fsdkaggle2018": (("fsd18_train*.tar", "fsd18_test*.tar"), "sound"),
    "gtzan": (tuple(f"gtzan_fold_{fold}_0000000.tar" for fold in range(10)), "genre"),
    "libricount": (tuple(f"libricount_fold{fold:02d}*.tar" for fold in range(5)), "num_speakers"),
    "librispeech_asr": (("train-clean-100*.tar", "dev-clean*.tar", "test-clean*.tar"), "trans"),
    "librispeech_mf": (("train-clean-100*.tar", "dev-clean*.tar", "test-clean*.tar"), "gender"),
    "maestro": (("maestro_train*.tar", "maestro_valid*.tar", "maestro_test*.tar"), None),
    "nsynth": (("nsynth_train*.tar", "nsynth_valid*.tar", "nsynth_test*.tar"), "instrument_family_str"),
    "ravdess": (tuple(f"ravdess_fold_{fold}_0000000.tar" for fold in range(4)), "emotion"),
    "speechcommands_v1": (("wds-audio-train*.tar", "wds-audio-valid*.tar", "wds-audio-test*.tar"), "labels"),
    "urbansound8k": (tuple(f"urbansound_fold{fold}_0000000.tar" for fold in range(1, 11)), "soundevent"),
    "vocalimitation": (tuple(f"vocal_imitations_fold{fold:02d}_0000000.tar" for fold in range(3)), "imitation"),
    "vocalsound": (("train*.tar", "valid*.tar", "test*.tar"), "label"),
    "voxceleb1": (("voxceleb1_train*.tar", "voxceleb1_valid*.tar", "voxceleb1_test*.tar"), "speakerid"),
    "voxlingua33": (("train_subset*.tar", "dev*.tar"), "labels"),
}
ENCODED = (".flac", ".mp3", ".sox", ".wav", ".m4a", ".ogg", ".wma")  # what X-ARES looks for in a record

# Publishers' audio files, by their names below the dataset's root.
AUDIO: dict[str, str] = {
    "asvspoof2015": r"wav/([TDE])\d+/\1\d+\.wav",
    "clotho": r"(development|validation|evaluation)/[^/]+\.wav",
    "cremad": r"AudioWAV/10\d\d_[A-Z]{3}_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX)\.wav",
    "esc50": r"audio/[1-5]-\d+-[A-Z]-\d+\.wav",
    "fluentspeechcommands": r"wavs/speakers/\w+/[0-9a-f-]+\.wav",
    "fma_small": r"fma_small/(\d{3})/\1\d{3}\.mp3",
    "fsd50k": r"FSD50K\.(dev|eval)_audio/\d+\.wav",
    "fsdkaggle2018": r"FSDKaggle2018\.audio_(train|test)/[0-9a-f]+\.wav",
    "gtzan": r"(blues|classical|country|disco|hip-?hop|jazz|metal|pop|reggae|rock)/\1\.000\d\d\.wav",
    "libricount": r"test/(\d|10)_\d+\.wav",
    "librispeech_asr": r"(train-clean-100|dev-clean|test-clean)/(\d+)/(\d+)/\2-\3-\d{4}\.flac",
    "librispeech_mf": r"(train-clean-100|dev-clean|test-clean)/(\d+)/(\d+)/\2-\3-\d{4}\.flac",
    "maestro": r"20\d\d/[^/]+\.wav",
    "nsynth": r"nsynth-(train|valid|test)/audio/[a-z_]+_(acoustic|electronic|synthetic)_\d{3}-\d{3}-\d{3}\.wav",
    "ravdess": r"Actor_(\d\d)/03-01-0[1-8]-0[12]-0[12]-0[12]-\1\.wav",
    "speechcommands_v1": r"[a-z_]+/([0-9a-f]{8}_nohash_\d|[a-z_]+)\.wav",
    "urbansound8k": r"audio/fold(10|[1-9])/\d+-\d-\d+-\d+\.wav",
    "vocalsound": r"audio_16k/[fm]\d{4}_\d_(laughter|sigh|cough|throatclearing|sneeze|sniff)\.wav",
    "voxceleb1": r"wav/id1\d{4}/.{11}/\d{5}\.wav",
    "voxlingua33": r"(dev/)?[a-z]{2,3}/.+\.wav",
}

# Publishers' tables: a pattern of their name, and the columns that they begin with or hold.
TABLES: dict[str, tuple[str, str]] = {
    "clotho": ("clotho_captions_*.csv", "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"),
    "esc50": ("esc50.csv", "filename,fold,target,category,esc10,src_file,take"),
    "fsd50k": ("eval.csv", "fname,labels,mids"),
    "urbansound8k": ("UrbanSound8K.csv", "slice_file_name,fsID,start,end,salience,fold,classID,class"),
    "fluentspeechcommands": ("*_data.csv", ",path,speakerId,transcription,action,object,location"),
    "desed": ("weak.tsv", "filename\tevent_labels"),
    "maestro": ("maestro-v3.0.0.csv", "canonical_composer,canonical_title,split,year,midi_filename,audio_filename"),
}


def test_the_cards_have_the_publishers_counts() -> None:
    assert set(COUNTS) == set(CARDS)
    for name, counts in COUNTS.items():
        size = find_card(name).size
        assert size is not None
        assert size.clips == sum(counts), name
        if len(counts) > 1:
            assert tuple((size.splits or {}).values()) == counts, name


def records(folder: Path) -> dict[str, list[tuple[set[str], Any]]]:
    """Return the records of each tar, in order: the suffixes of a key's members, and its JSON."""
    records_of = {}
    for path in sorted(folder.rglob("*.tar")):
        members: dict[str, tuple[set[str], Any]] = {}
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                key, dot, suffix = member.name.partition(".")
                suffixes, content = members.get(key, (set(), None))
                if suffix == "json":
                    file = tar.extractfile(member)
                    assert file is not None
                    content = json.load(file)
                members[key] = (suffixes | {dot + suffix}, content)
        records_of[path.name] = list(members.values())
    return records_of


@pytest.mark.slow
@pytest.mark.parametrize("card", CARDS)
def test_generated_shards_are_what_x_ares_looks_for(card: str, miniatures: Path) -> None:
    patterns, field = SHARDS[card]
    made = records(miniatures / "xares" / card)
    for pattern in patterns:
        assert sum(fnmatch(name, pattern) for name in made), pattern
    assert all(any(fnmatch(name, pattern) for pattern in patterns) for name in made)
    for suffixes, content in (record for part in made.values() for record in part):
        assert len(suffixes) == 2
        assert len(suffixes & set(ENCODED)) == 1
        if field is not None:
            assert field in content
        elif card == "clotho":
            assert len(content) == 5
            assert all(isinstance(text, str) for text in content.values())
        else:
            keys = {"desed": {"onset", "offset", "label"}, "maestro": {"start", "end", "note"}}[card]
            assert all(set(event) == keys for event in content)


@pytest.mark.parametrize("card", CARDS)
def test_generated_folders_are_what_publishers_ship(card: str, miniatures: Path) -> None:
    root = miniatures / "publisher" / card
    if card in AUDIO:
        names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.suffix in ENCODED]
        assert names
        odd = [name for name in names if not re.search(f"(?:^|/){AUDIO[card]}$", name)]
        assert odd == []
    if card in TABLES:
        pattern, columns = TABLES[card]
        tables = list(root.rglob(pattern))
        assert tables
        for table in tables:
            assert table.read_text(encoding="utf-8").splitlines()[0].startswith(columns)
