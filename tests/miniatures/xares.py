"""Write the same datasets as X-ARES packs them: WebDataset tars, with the names and the JSON that its tasks read.

What is inside the real tars is known only from the code that reads them (label keys and values, shard names). Names
hold no dots: the webdataset library takes what follows the first dot for the extension, and X-ARES asks for `wav` and
the like.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from miniatures.bank import Bank, encode
from miniatures.publishers import piano_roll

_SPLITS = (("train", 6), ("valid", 2), ("test", 2))  # clips per class


def write_tar(path: Path, records: Iterable[tuple[str, str, bytes, Any]]) -> None:
    """Write (key, audio extension, audio, label) records as WebDataset does, with the members of a key side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, extension, audio, label in records:
            for name, data in ((f"{key}.{extension}", audio), (f"{key}.json", json.dumps(label).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _splits(
    folder: Path,
    bank: Bank,
    *,
    tars: dict[str, str],
    field: str,
    labels: tuple[Any, ...],
    domain: str,
    key: Callable[[int, int, int], str],
    seconds: float = 1.5,
    extension: str = "wav",
) -> None:
    for number, (split, clips) in enumerate(_SPLITS):
        if split not in tars:
            continue
        records = []
        for index, label in enumerate(labels):
            for clip in range(clips):
                audio = encode(bank.cut(domain, index, seconds, 16_000), 16_000, extension)
                records.append((key(number, index, clip), extension, audio, {field: label}))
        write_tar(folder / tars[split], records)


def _folds(
    folder: Path,
    bank: Bank,
    *,
    tars: tuple[str, ...],
    field: str,
    labels: tuple[Any, ...],
    domain: str,
    key: Callable[[int, int, int], str],
    each: int = 2,
) -> None:
    for fold, tar in enumerate(tars):
        records = []
        for index, label in enumerate(labels):
            for clip in range(each):
                audio = encode(bank.cut(domain, index, 1.5, 16_000), 16_000, "wav")
                records.append((key(fold, index, clip), "wav", audio, {field: label}))
        write_tar(folder / tar, records)


def _clotho(folder: Path, bank: Bank) -> None:
    for part, clips in (("development", 10), ("evaluation", 5), ("validation", 5)):
        records = []
        for clip in range(clips):
            audio = encode(bank.cut("sound", clip, 2.0, 44_100), 44_100, "flac")
            captions = {f"caption_{k}": f"Something number {clip} sounds {k} times." for k in range(1, 6)}
            records.append((f"{part}_{clip}", "flac", audio, captions))
        write_tar(folder / f"clotho_{part}_0000000.tar", records)


def _desed(folder: Path, bank: Bank) -> None:
    names = ("Dog", "Frying", "Blender")
    for part, clips in (("train", 9), ("eval", 6)):
        records = []
        for clip in range(clips):
            audio = encode(bank.cut("sound", clip % 3, 10.0, 16_000), 16_000, "wav")
            label = names[clip % 3] if part == "eval" else f"{names[clip % 3]},Speech"
            first = 0.0 if part == "train" else 1.25
            events = [{"onset": first, "offset": 10.0, "label": label}]
            records.append((f"YdQw4w9W{part[0]}{clip:03d}_30_000_40_000", "wav", audio, events))
        write_tar(folder / f"wds-audio-{part}-000000.tar", records)


def _maestro(folder: Path, bank: Bank) -> None:
    for split, clips in (("train", 5), ("valid", 2), ("test", 2)):
        records = []
        for clip in range(clips):
            samples, notes = piano_roll(bank, clip, 16_000)
            label = [{"start": start, "end": end, "note": pitch} for start, end, pitch in notes]
            records.append((f"{split}_{clip}", "flac", encode(samples, 16_000, "flac"), label))
        write_tar(folder / f"maestro_{split}_0000000.tar", records)


def _librispeech(folder: Path, bank: Bank) -> None:
    digits = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
    parts = (("train-clean-100", (103, 1034, 1040, 1069)), ("dev-clean", (84, 174)), ("test-clean", (61, 121)))
    for part, speakers in parts:
        records = []
        for index, speaker in enumerate(speakers):
            for utterance in range(4):
                number = (utterance + 3 * (index % 2)) % 10
                audio = encode(bank.cut("speech", number, 1.0, 16_000), 16_000, "flac")
                label = {"trans": digits[number], "speaker": str(speaker), "gender": "MF"[index % 2]}
                records.append((f"{speaker}-1240-{utterance:04d}", "flac", audio, label))
        write_tar(folder / f"{part}-000000.tar", records)


def _named(prefix: str) -> dict[str, str]:
    return {split: f"{prefix}_{split}_0000000.tar" for split in ("train", "valid", "test")}


_ASV = {
    "train": "asvspoof_train_0000000.tar",
    "valid": "asvspoof_valid_0000000.tar",
    "test": "asvspoof_eval_0000000.tar",
}
_FSD50K = {
    "train": "fsd50k_train_000000.tar",
    "valid": "fsd50k_validation_000000.tar",
    "test": "fsd50k_eval_000000.tar",
}
_WDS = {split: f"wds-audio-{split}-000000.tar" for split in ("train", "valid", "test")}
_PHRASES = ("Change language", "That\u2019s too loud", "It\u2019s too loud, turn it down", "Volume up")

WRITERS: dict[str, Callable[[Path, Bank], None]] = {
    "asvspoof2015": partial(
        _splits,
        tars=_ASV,
        field="binary_spoof",
        labels=("human", "spoof"),
        domain="speech",
        key=lambda part, index, clip: f"{'TDE'[part]}{index}{clip:05d}",
    ),
    "clotho": _clotho,
    "cremad": partial(
        _splits,
        tars=_WDS,
        field="label",
        labels=("H", "S", "A", "N"),
        domain="speech",
        key=lambda part, index, clip: f"{1001 + clip + 10 * part}_IEO_{('HAP', 'SAD', 'ANG', 'NEU')[index]}_HI",
    ),
    "desed": _desed,
    "esc50": partial(
        _folds,
        tars=tuple(f"wds-audio-fold-{fold}-000000.tar" for fold in range(1, 6)),
        field="label",
        labels=(0, 1, 10, 40),
        domain="sound",
        key=lambda fold, index, clip: f"{fold + 1}-{100_000 + 10 * fold + index}-{'AB'[clip]}-{(0, 1, 10, 40)[index]}",
    ),
    "fluentspeechcommands": partial(
        _splits,
        tars=_named("fluentspeechcommands"),
        field="transcription",
        labels=_PHRASES,
        domain="speech",
        key=lambda part, index, clip: f"{part}-{index:04x}-{clip:04x}",
    ),
    "fma_small": partial(
        _splits,
        tars=_named("fma_small"),
        field="genre",
        labels=("Hip-Hop", "Folk", "Rock", "International"),
        domain="music",
        key=lambda part, index, clip: f"{part}{index}{clip:04d}",
        extension="mp3",
    ),
    "fsd50k": partial(
        _splits,
        tars=_FSD50K,
        field="soundevent",
        labels=("Bark;Dog;Animal", "Rain;Water", "Crow;Bird;Animal"),
        domain="sound",
        key=lambda part, index, clip: f"{part}{index}{clip:03d}",
    ),
    "fsdkaggle2018": partial(
        _splits,
        tars={"train": "fsd18_train_0000000.tar", "test": "fsd18_test_0000000.tar"},
        field="sound",
        labels=("Bark", "Cello", "Gunshot_or_gunfire", "Hi-hat"),
        domain="sound",
        key=lambda part, index, clip: f"{part}{index}{clip:06x}",
    ),
    "gtzan": partial(
        _folds,
        tars=tuple(f"gtzan_fold_{fold}_0000000.tar" for fold in range(10)),
        field="genre",
        labels=("blues", "classical", "hiphop", "rock"),
        domain="music",
        key=lambda fold, index, _: f"{('blues', 'classical', 'hiphop', 'rock')[index]}_{fold:05d}",
        each=1,
    ),
    "libricount": partial(
        _folds,
        tars=tuple(f"libricount_fold{fold:02d}.tar" for fold in range(5)),
        field="num_speakers",
        labels=(0, 1, 2, 10),
        domain="speech",
        key=lambda fold, index, clip: f"{(0, 1, 2, 10)[index]}_{100 * fold + clip}",
    ),
    "librispeech_asr": _librispeech,
    "librispeech_mf": _librispeech,
    "maestro": _maestro,
    "nsynth": partial(
        _splits,
        tars=_named("nsynth"),
        field="instrument_family_str",
        labels=("bass", "flute", "guitar", "organ"),
        domain="music",
        key=lambda part, index, clip: (
            f"{('bass', 'flute', 'guitar', 'organ')[index]}_acoustic_{part:03d}-{clip:03d}-075"
        ),
    ),
    "ravdess": partial(
        _folds,
        tars=tuple(f"ravdess_fold_{fold}_0000000.tar" for fold in range(4)),
        field="emotion",
        labels=("neutral", "happy", "sad", "angry"),
        domain="speech",
        key=lambda fold, index, clip: f"03-01-0{(1, 3, 4, 5)[index]}-01-01-01-{2 * fold + clip + 1:02d}",
    ),
    "speechcommands_v1": partial(
        _splits,
        tars=_WDS,
        field="labels",
        labels=("bed", "bird", "zero", "yes"),
        domain="speech",
        key=lambda part, index, clip: f"{('bed', 'bird', 'zero', 'yes')[index]}/{16 * part + clip:08x}_nohash_0",
        seconds=1.0,
    ),
    "urbansound8k": partial(
        _folds,
        tars=tuple(f"urbansound_fold{fold}_0000000.tar" for fold in range(1, 11)),
        field="soundevent",
        labels=("car_horn", "dog_bark", "gun_shot"),
        domain="sound",
        key=lambda fold, index, _: f"{1000 * fold + index}-{(1, 3, 6)[index]}-0-0",
        each=1,
    ),
    "vocalimitation": partial(
        _folds,
        tars=tuple(f"vocal_imitations_fold{fold:02d}_0000000.tar" for fold in range(3)),
        field="imitation",
        labels=(
            "000Animal_Domestic animals_ pets_Cat_Growling_reference",
            "004Animal_Domestic animals_ pets_Dog_Bark_reference",
            "146Natural sounds_Wind_Howl (wind)_reference",
        ),
        domain="sound",
        key=lambda fold, index, clip: f"{index:03d}x-{5_734_240_000_000_000 + 10 * fold + clip}",
        each=3,
    ),
    "vocalsound": partial(
        _splits,
        tars={"train": "train-000000.tar", "valid": "valid-000000.tar", "test": "test-000000.tar"},
        field="label",
        labels=("laughter", "cough", "sneeze", "throatclearing"),
        domain="sound",
        key=lambda part, index, clip: (
            f"f{100 * part + clip:04d}_0_{('laughter', 'cough', 'sneeze', 'throatclearing')[index]}"
        ),
    ),
    "voxceleb1": partial(
        _splits,
        tars=_named("voxceleb1"),
        field="speakerid",
        labels=("id10001", "id10301", "id10601", "id11251"),
        domain="speech",
        key=lambda part, index, clip: (
            f"{('id10001', 'id10301', 'id10601', 'id11251')[index]}/dQw4w9W{part:04d}/{clip:05d}"
        ),
    ),
    "voxlingua33": partial(
        _splits,
        tars={"train": "train_subset_2k_0000000.tar", "test": "dev_0000000.tar"},
        field="labels",
        labels=("en", "et", "uk", "zh"),
        domain="speech",
        key=lambda part, index, clip: f"dQw4w9{part}{index}{clip:03d}__U__S1---0012_000-0014_000",
        seconds=2.0,
    ),
}
