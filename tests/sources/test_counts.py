"""Every layout at full size: tables and files as numerous as the publisher's give the counts of the card.

Only the label tables and empty files are made, with the published number of clips in each split.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from miniatures.tables import write_lines, write_table
from uwbench.cards.find import find_card, load_vocabulary
from uwbench.sources.check import check_dataset
from uwbench.sources.dataset import Dataset
from uwbench.sources.resolve import open_task


def sizes(card: str) -> dict[str, int]:
    size = find_card(card).size
    assert size is not None
    assert size.splits is not None
    return size.splits


def labels(card: str) -> Iterator[str]:
    """Yield the card's classes in an endless cycle."""
    vocabulary = load_vocabulary(card)
    while True:
        yield from vocabulary


def touch(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def asvspoof2015(folder: Path) -> None:
    names = {"train": "cm_train.trn.txt", "valid": "cm_develop.ndx.txt", "test": "cm_evaluation.ndx.txt"}
    (folder / "wav").mkdir(parents=True)
    for split, count in sizes("asvspoof2015").items():
        lines = (f"{split[0].upper()}{i % 30} F{i} S1 {'spoof' if i % 20 else 'human'}" for i in range(count))
        write_lines(folder / "CM_protocol" / names[split], lines)


def clotho(folder: Path) -> None:
    header = ("file_name", *(f"caption_{i}" for i in range(1, 6)))
    for part, count in zip(("development", "validation", "evaluation"), sizes("clotho").values(), strict=True):
        write_table(folder / f"clotho_captions_{part}.csv", header, ((f"{i}.wav", *"abcde") for i in range(count)))


def cremad(folder: Path) -> None:
    sentences = [f"{a}{b}{c}" for a in "ABC" for b in "DEF" for c in "GH"]
    names = [
        f"{actor}_{sentence}_{emotion}_XX.wav"
        for sentence in sentences
        for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
        for actor in range(1001, 1092)
    ]
    touch(folder / "AudioWAV", names[:7442])


def desed(folder: Path) -> None:
    (folder / "audio").mkdir(parents=True)
    weak = ((f"Y{i:011d}_0.000_10.000.wav", "Speech,Dog") for i in range(1578))
    write_table(folder / "metadata" / "train" / "weak.tsv", ("filename", "event_labels"), weak, "\t")
    events = [(f"Y{i:011d}_1.000_11.000.wav", *((1.5, 2.5, "Cat") if i < 1153 else ("",) * 3)) for i in range(1168)]
    header = ("filename", "onset", "offset", "event_label")
    write_table(folder / "metadata" / "validation" / "validation.tsv", header, events + events[:50], "\t")


def esc50(folder: Path) -> None:
    (folder / "audio").mkdir(parents=True)
    rows = [
        (
            f"{fold}-{fold * 1000 + 8 * target + i}-A-{target}.wav",
            fold,
            target,
            name,
            "False",
            f"{fold}{target}{i}",
            "A",
        )
        for fold in range(1, 6)
        for target, name in enumerate(load_vocabulary("esc50"))
        for i in range(8)
    ]
    header = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
    write_table(folder / "meta" / "esc50.csv", header, rows)


def fluentspeechcommands(folder: Path) -> None:
    (folder / "wavs").mkdir(parents=True)
    phrase = labels("fluentspeechcommands")
    header = ("", "path", "speakerId", "transcription", "action", "object", "location")
    for split, count in sizes("fluentspeechcommands").items():
        rows = ((i, f"wavs/{split}/{i}.wav", f"{split}{i % 10}", next(phrase), "a", "o", "l") for i in range(count))
        write_table(folder / "data" / f"{split}_data.csv", header, rows)


def fma_small(folder: Path) -> None:
    (folder / "fma_small").mkdir(parents=True)
    genre = labels("fma_small")
    rows: list[tuple[object, ...]] = [("", "id", "split", "subset", "genre_top"), ("track_id", "", "", "", "")]
    for split, count in zip(("training", "validation", "test"), sizes("fma_small").values(), strict=True):
        rows += [(len(rows), f"{split}{i}", split, "small", next(genre)) for i in range(count)]
    rows += [(200_000 + i, i, "training", "medium", "Rock") for i in range(100)]
    write_table(folder / "fma_metadata" / "tracks.csv", ("", "artist", "set", "set", "track"), rows)


def fsd50k(folder: Path) -> None:
    train, valid, test = sizes("fsd50k").values()
    truth = folder / "FSD50K.ground_truth"
    name = labels("fsd50k")
    rows = ((i, f"{next(name)},{next(name)}", "m,m", "train" if i < train else "val") for i in range(train + valid))
    write_table(truth / "dev.csv", ("fname", "labels", "mids", "split"), rows)
    write_table(truth / "eval.csv", ("fname", "labels", "mids"), ((i, next(name), "m") for i in range(test)))


def fsdkaggle2018(folder: Path) -> None:
    label = labels("fsdkaggle2018")
    names = ("train_post_competition.csv", "test_post_competition_scoring_clips.csv")
    for (split, count), name in zip(sizes("fsdkaggle2018").items(), names, strict=True):
        rows = ((f"{i:08x}.wav", next(label), 1, f"{split}{i}", "CC") for i in range(count))
        write_table(folder / "FSDKaggle2018.meta" / name, ("fname", "label", "x", "freesound_id", "license"), rows)


def gtzan(folder: Path) -> None:
    for genre in load_vocabulary("gtzan"):
        touch(folder / "genres" / genre, [f"{genre}.{i:05d}.wav" for i in range(100)])


def libricount(folder: Path) -> None:
    stems = [f"{k}_{1000 * k + i}" for k in range(11) for i in range(520)]
    touch(folder / "test", [f"{stem}.wav" for stem in stems] + [f"{stem}.json" for stem in stems])


def librispeech(folder: Path) -> None:
    people = ["; a comment"]
    parts = zip(("train-clean-100", "dev-clean", "test-clean"), sizes("librispeech_asr").values(), strict=True)
    for base, (part, count) in enumerate(parts, start=1):
        for i in range(40):
            speaker = 1000 * base + i
            people.append(f"{speaker} | {'MF'[i % 2]} | {part} | 20 | Name")
            lines = (f"{speaker}-1-{j:04d} SOME WORDS" for j in range(count // 40 + (i < count % 40)))
            write_lines(folder / "LibriSpeech" / part / str(speaker) / "1" / f"{speaker}-1.trans.txt", lines)
    write_lines(folder / "LibriSpeech" / "SPEAKERS.TXT", people)


def nsynth(folder: Path) -> None:
    family = labels("nsynth")
    for number, (split, count) in enumerate(sizes("nsynth").items()):
        notes = {f"n_{number}{i:06d}-060-100": {"instrument_family_str": next(family)} for i in range(count)}
        write_lines(folder / f"nsynth-{split}" / "examples.json", [json.dumps(notes)])


def speechcommands_v1(folder: Path) -> None:
    train, valid, test = sizes("speechcommands_v1").values()
    words = load_vocabulary("speechcommands_v1")
    names = [f"{words[i % 30]}/{i:08x}_nohash_0.wav" for i in range(train + valid + test)]
    for number, word in enumerate(words):
        touch(folder / word, [name.partition("/")[2] for name in names[number::30]])
    touch(folder / "_background_noise_", ["white_noise.wav"])
    write_lines(folder / "validation_list.txt", names[:valid])
    write_lines(folder / "testing_list.txt", names[valid : valid + test])


def urbansound8k(folder: Path) -> None:
    (folder / "audio").mkdir(parents=True)
    name = labels("urbansound8k")
    rows = ((f"{i}-0-0-0.wav", i, 0, 4, 1, 1 + i % 10, 0, next(name)) for i in range(8732))
    header = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")
    write_table(folder / "metadata" / "UrbanSound8K.csv", header, rows)


def vocalimitation(folder: Path) -> None:
    (folder / "vocal_imitations" / "included").mkdir(parents=True)
    header = ("imitation_filename", "reference_filename", "included", "participant_id")
    rows = [(f"{i % 302:03d}x-{i}.wav", f"{i % 302:03d}x_reference.wav", "True", f"{i % 248}.0") for i in range(5601)]
    rows += [(f"000x-{i}.wav", "000x_reference.wav", "False", "1.0") for i in range(5601, 6115)]
    write_table(folder / "vocal_imitations.txt", header, rows, "\t")


def vocalsound(folder: Path) -> None:
    sound = labels("vocalsound")
    names = []
    for number, (part, count) in enumerate(zip(("tr", "val", "te"), sizes("vocalsound").values(), strict=True)):
        people = [f"{'fm'[i % 2]}{3000 * number + i:04d}" for i in range(count // 6)]
        write_table(folder / "meta" / f"{part}_meta.csv", ("spk_id", "gender"), ((p, p[0]) for p in people))
        names += [f"{person}_0_{next(sound)}.wav" for person in people for _ in range(6)]
    touch(folder / "audio_16k", names)


def voxceleb1(folder: Path) -> None:
    (folder / "wav").mkdir(parents=True)
    lines = []
    for number, (split, count) in enumerate(sizes("voxceleb1").items(), start=1):
        lines += [f"{number} id{10_001 + i % 1251}/{split:v<11}/{i:05d}.wav" for i in range(count)]
    write_lines(folder / "meta" / "iden_split.txt", lines)


def voxlingua33(folder: Path) -> None:
    languages = load_vocabulary("voxlingua33")
    for number, language in enumerate(languages):
        # English has more than is taken.
        clips = 2010 if language == "en" else 2000
        touch(folder / language, [f"t{i:010d}__U__S0---1.0-2.0.wav" for i in range(clips)])
        tested = 1609 // 33 + (number < 1609 % 33)
        touch(folder / "dev" / language, [f"d{number:03d}{i:07d}__U__S0---1.0-2.0.wav" for i in range(tested)])


PUBLISHERS: dict[str, Callable[[Path], None]] = {
    "asvspoof2015": asvspoof2015,
    "clotho": clotho,
    "cremad": cremad,
    "desed": desed,
    "esc50": esc50,
    "fluentspeechcommands": fluentspeechcommands,
    "fma_small": fma_small,
    "fsd50k": fsd50k,
    "fsdkaggle2018": fsdkaggle2018,
    "gtzan": gtzan,
    "libricount": libricount,
    "librispeech_asr": librispeech,
    "librispeech_mf": librispeech,
    "nsynth": nsynth,
    "speechcommands_v1": speechcommands_v1,
    "urbansound8k": urbansound8k,
    "vocalimitation": vocalimitation,
    "vocalsound": vocalsound,
    "voxceleb1": voxceleb1,
    "voxlingua33": voxlingua33,
}


@pytest.mark.parametrize("card", sorted(PUBLISHERS))
def test_a_layout_gives_the_counts_of_its_card(tmp_path: Path, card: str) -> None:
    PUBLISHERS[card](tmp_path / card)
    dataset = open_task(card, data=tmp_path)
    size = dataset.card.size
    assert size is not None
    assert len(dataset.clips) == size.clips
    counts = Counter(clip.split or clip.fold for clip in dataset.clips)
    assert {part: counts[part] for part in size.splits or {}} == (size.splits or {})
    if dataset.card.folds is not None:
        assert set(counts) == set(dataset.card.folds)
    vocabulary = set(load_vocabulary(dataset.card.vocabulary)) if dataset.card.vocabulary else set()
    if dataset.card.kind == "single-label" and vocabulary:
        assert {clip.labels for clip in dataset.clips} == vocabulary
    # Check a few clips only, since there is no audio.
    few = Dataset(dataset.card, dataset.clips[:3], dataset.source, (), dataset.origin)
    assert {"count", "missing"} & {finding.code for finding in check_dataset(few).findings}
