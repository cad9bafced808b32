"""Publishers' layouts agree with the published facts."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import mido
import numpy as np
import pytest

from miniatures import CARDS, write_miniature
from miniatures.publishers import write_midi
from uwbench.audio.clip import AudioFile, AudioMember, Clip, Event
from uwbench.cards.find import find_card
from uwbench.errors import DataError
from uwbench.sources.check import check_dataset
from uwbench.sources.dataset import Dataset
from uwbench.sources.layouts.midi import read_notes
from uwbench.sources.resolve import describe_source, open_task

LAYOUTS = ("publisher", "xares")

# Findings in every miniature, which has few clips of few classes.
SMALL = {"count", "class-missing"}
# Findings that belong to the dataset: file-wise folds of Vocal Imitation, clips without an event of DESED, languages
# that a miniature leaves out, pitches that a handful of performances do not share.
OWN = {
    ("vocalimitation", "publisher"): {"group-across"},
    ("desed", "publisher"): {"reading"},
    ("voxlingua33", "publisher"): {"reading"},
    ("maestro", "xares"): {"class-untrained", "reading"},
    # Shards whose names and labels do not tell the speaker, artist, uploader or participant.
    ("asvspoof2015", "xares"): {"reading"},
    ("fluentspeechcommands", "xares"): {"reading"},
    ("fma_small", "xares"): {"reading"},
    ("fsd50k", "xares"): {"reading"},
    ("fsdkaggle2018", "xares"): {"reading"},
    ("vocalimitation", "xares"): {"reading"},
}


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_dataset_opens_and_passes_its_check(miniatures: Path, card: str, layout: str) -> None:
    data = miniatures / layout
    dataset = open_task(card, data=data)
    assert dataset.origin == ("shards" if layout == "xares" else "publisher")
    assert describe_source(dataset.card, data) == dataset.source
    report = check_dataset(dataset)
    assert {finding.code for finding in report.findings} - SMALL == OWN.get((card, layout), set())
    errors = [finding for finding in report.findings if finding.severity == "error" and finding.code != "count"]
    assert not errors
    assert sum(report.counts.values()) == report.clips == len(dataset.clips) > 0
    parts = {clip.split or clip.fold for clip in dataset.clips}
    if dataset.card.folds is not None:
        assert parts == set(dataset.card.folds)
    else:
        assert dataset.card.splits is not None
        assert parts == {"train", "test"} | ({"valid"} if dataset.card.splits.valid else set())


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_two_splits_share_audio(miniatures: Path, card: str, layout: str) -> None:
    """No two splits or folds take their audio from the same place on disk."""
    parts: dict[tuple[str, int], set[str | None]] = defaultdict(set)
    for clip in open_task(card, data=miniatures / layout).clips:
        assert isinstance(clip.audio, AudioFile | AudioMember)
        offset = clip.audio.offset if isinstance(clip.audio, AudioMember) else 0
        parts[str(clip.audio.path), offset].add(clip.split or clip.fold)
    assert all(len(places) == 1 for places in parts.values())


def by_split(dataset: Dataset, value: str) -> dict[str, set[str]]:
    """Return, for each split or fold, the set of its groups or of its labels."""
    values: dict[str, set[str]] = defaultdict(set)
    for clip in dataset.clips:
        values[clip.split or clip.fold or ""].add(str(clip.group if value == "group" else clip.labels))
    return values


def names_only(folder: Path, names: list[str]) -> None:
    """Make empty files, since layouts are read from names and tables."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def ravdess_names() -> list[str]:
    """Return the 1,440 names of the published archive: no strong neutral, two statements, two repetitions."""
    return [
        f"Actor_{actor:02d}/03-01-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}.wav"
        for actor in range(1, 25)
        for emotion in range(1, 9)
        for intensity in ((1,) if emotion == 1 else (1, 2))
        for statement in (1, 2)
        for repetition in (1, 2)
    ]


@pytest.mark.parametrize(
    "place", ["ravdess", "ravdess/Audio_Speech_Actors_01-24", "RAVDESS", "Audio_Speech_Actors_01-24", "."]
)
def test_ravdess_as_published(tmp_path: Path, place: str) -> None:
    names_only(tmp_path / place, ravdess_names())
    dataset = open_task("ravdess", data=tmp_path)
    assert len(dataset.clips) == 1440
    assert dataset.problems == ()
    assert Counter(clip.fold for clip in dataset.clips) == dict.fromkeys("0123", 360)
    assert Counter(clip.labels for clip in dataset.clips) == {
        label: 96 if label == "neutral" else 192
        for label in ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
    }
    groups = by_split(dataset, "group")
    assert sorted(group for names in groups.values() for group in names) == [f"{i:02d}" for i in range(1, 25)]
    # Odd actors are men: three men and three women in every fold.
    assert {sum(int(actor) % 2 for actor in actors) for actors in groups.values()} == {3}
    emotions = {1: "neutral", 2: "calm", 3: "happy", 4: "sad", 5: "angry", 6: "fearful", 7: "disgust", 8: "surprised"}
    for clip in dataset.clips:
        fields = clip.id.rpartition("/")[2].split("-")
        assert clip.labels == emotions[int(fields[2])]
        assert clip.group == fields[6].removesuffix(".wav")


def test_ravdess_beside_its_songs_and_films(tmp_path: Path) -> None:
    root = tmp_path / "ravdess"
    names_only(root / "Audio_Speech_Actors_01-24", ravdess_names())
    names_only(root / "Audio_Song_Actors_01-24", [name.replace("/03-01", "/03-02") for name in ravdess_names()[:60]])
    names_only(root / "Audio_Speech_Actors_01-24", ["Actor_01/01-01-01-01-01-01-01.wav", "Actor_01/._03-01-x.wav"])
    dataset = open_task("ravdess", data=tmp_path)
    assert len(dataset.clips) == 1440
    assert "1 files are not audio-only speech" in dataset.problems[0]


def test_ravdess_with_a_wrong_name(tmp_path: Path) -> None:
    names_only(tmp_path / "ravdess", [*ravdess_names(), "Actor_01/03-01-09-01-01-01-01.wav", "Actor_01/copy.wav"])
    dataset = open_task("ravdess", data=tmp_path)
    assert len(dataset.clips) == 1440
    assert len(dataset.problems) == 2


@pytest.mark.parametrize("hiphop", ["hiphop", "hip-hop"])
def test_gtzan_as_published(tmp_path: Path, hiphop: str) -> None:
    genres = ("blues", "classical", "country", "disco", hiphop, "jazz", "metal", "pop", "reggae", "rock")
    names = [f"{genre}/{genre}.{i:05d}.wav" for genre in genres for i in range(100)]
    names_only(tmp_path / "gtzan_genre" / "genres", names)
    dataset = open_task("gtzan", data=tmp_path)
    assert Counter(clip.fold for clip in dataset.clips) == dict.fromkeys("0123456789", 100)
    labels = Counter(clip.labels for clip in dataset.clips)
    assert labels == {genre.replace("-", ""): 100 for genre in genres}
    for fold, genres_of_fold in by_split(dataset, "label").items():
        assert len(genres_of_fold) == 10, fold
    again = open_task("gtzan", data=tmp_path)
    assert again.clips == dataset.clips


def test_crema_d_is_split_by_actor_as_tensorflow_datasets_does(tmp_path: Path) -> None:
    actors = [str(actor) for actor in range(1001, 1092)]
    names = [f"AudioWAV/{a}_{s}_{e}_XX.wav" for a in actors for s in ("IEO", "DFA") for e in ("ANG", "NEU")]
    names_only(tmp_path / "cremad", [*names, "AudioWAV/1040_ITH_SAD_X.wav"])
    dataset = open_task("cremad", data=tmp_path)
    assert len(dataset.clips) == 365
    shuffled = sorted(actors)
    np.random.RandomState(0).shuffle(shuffled)
    groups = by_split(dataset, "group")
    assert groups["train"] == set(shuffled[:63])
    assert groups["valid"] == set(shuffled[63:72])
    assert groups["test"] == set(shuffled[72:])


def test_libricount_deals_folds_with_every_count(tmp_path: Path) -> None:
    stems = [f"{k}_{1000 * k + i}" for k in range(11) for i in range(52)]
    names_only(tmp_path / "libricount", [f"test/{stem}{suffix}" for stem in stems for suffix in (".wav", ".json")])
    dataset = open_task("libricount", data=tmp_path)
    assert sorted(Counter(clip.fold for clip in dataset.clips).values()) == [114, 114, 114, 115, 115]
    for counts in by_split(dataset, "label").values():
        assert counts == {str(k) for k in range(11)}


def test_speech_commands_lists_decide(miniatures: Path) -> None:
    dataset = open_task("speechcommands_v1", data=miniatures / "publisher")
    assert Counter(clip.split for clip in dataset.clips) == {"train": 20, "valid": 4, "test": 8}
    assert not any("background" in clip.id for clip in dataset.clips)
    groups = by_split(dataset, "group")
    assert not groups["train"] & groups["test"]


def test_the_check_finds_a_listed_file_that_is_missing(tmp_path: Path, shared_data: Path) -> None:
    write_miniature("voxceleb1", "publisher", tmp_path / "voxceleb1", shared_data)
    gone = tmp_path / "voxceleb1" / "wav" / "id10001"
    for path in gone.rglob("*.wav"):
        path.unlink()
    report = check_dataset(open_task("voxceleb1", data=tmp_path))
    missing = next(finding for finding in report.findings if finding.code == "missing")
    assert len(missing.clips) == 9
    assert not report.ok


def test_folds_and_groups_are_the_publishers(miniatures: Path) -> None:
    esc50 = open_task("esc50", data=miniatures / "publisher")
    for clip in esc50.clips:
        fold, source, *_ = clip.id.split("-")
        assert (clip.fold, clip.group) == (fold, source)
    urbansound = open_task("urbansound8k", data=miniatures / "publisher")
    for clip in urbansound.clips:
        assert clip.group == clip.id.partition("-")[0]
        assert str(clip.audio).endswith(f"/fold{clip.fold}/{clip.id}")
    voxceleb = open_task("voxceleb1", data=miniatures / "publisher")
    videos = by_split(voxceleb, "group")
    assert not videos["train"] & videos["test"]
    assert by_split(voxceleb, "label")["train"] == by_split(voxceleb, "label")["test"]


def test_labels_of_publishers_and_shards_are_spelt_alike(miniatures: Path) -> None:
    for card in ("cremad", "esc50", "librispeech_mf", "ravdess", "gtzan", "nsynth", "fsd50k", "fluentspeechcommands"):
        both = [
            {name for clip in open_task(card, data=miniatures / layout).clips for name in names(clip)}
            for layout in LAYOUTS
        ]
        assert both[0] & both[1], card


def names(clip: Clip) -> tuple[str, ...]:
    return (clip.labels,) if isinstance(clip.labels, str) else tuple(str(item) for item in clip.labels)


def test_captions_and_transcripts(miniatures: Path) -> None:
    clotho = open_task("clotho", data=miniatures / "publisher")
    assert {len(clip.labels) for clip in clotho.clips} == {5}
    assert clotho.clips[0].labels[1] == 'Something number 0 sounds, said 1 times, "loudly".'
    assert {clip.split: clip.id.partition("/")[0] for clip in clotho.clips} == {
        "train": "development",
        "valid": "validation",
        "test": "evaluation",
    }
    speech = open_task("librispeech_asr", data=miniatures / "publisher")
    assert speech.clips[0].labels == "ZERO"
    assert speech.clips[0].group == "103"
    gender = open_task("librispeech_mf", data=miniatures / "publisher")
    assert {clip.group: clip.labels for clip in gender.clips} == {
        "103": "M", "1034": "F", "1040": "M", "1069": "F", "84": "M", "174": "F", "61": "M", "121": "F"
    }  # fmt: skip


def test_an_unlisted_speaker_is_refused(tmp_path: Path, shared_data: Path) -> None:
    write_miniature("librispeech_mf", "publisher", tmp_path / "librispeech", shared_data)
    table = tmp_path / "librispeech" / "LibriSpeech" / "SPEAKERS.TXT"
    table.write_text("".join(line for line in table.open() if not line.startswith("61 ")))
    with pytest.raises(DataError, match="speaker 61 is not listed"):
        open_task("librispeech_mf", data=tmp_path)


def test_desed_events(miniatures: Path) -> None:
    dataset = open_task("desed", data=miniatures / "publisher")
    tested = [clip for clip in dataset.clips if clip.split == "test"]
    assert [clip.labels for clip in tested[:2]] == [(Event(2.0, 7.0, "Dog"),), (Event(2.0, 7.0, "Frying"),)]
    assert len(tested) == 5  # the sixth file holds no event
    trained = next(clip for clip in dataset.clips if clip.split == "train")
    assert trained.labels == (Event(0.0, 10.0, "Dog"), Event(0.0, 10.0, "Speech"))
    assert trained.group == "dQw4w9W0000"


def test_fma_takes_the_small_subset_only(miniatures: Path) -> None:
    dataset = open_task("fma_small", data=miniatures / "publisher")
    assert Counter(clip.split for clip in dataset.clips) == {"train": 20, "valid": 8, "test": 8}
    assert "099999" not in {clip.id for clip in dataset.clips}


def test_vocal_imitation_takes_included_files_only(miniatures: Path) -> None:
    dataset = open_task("vocalimitation", data=miniatures / "publisher")
    assert len(dataset.clips) == 24
    assert {clip.labels for clip in dataset.clips} == {
        "000Animal_Domestic animals_ pets_Cat_Growling_reference",
        "004Animal_Domestic animals_ pets_Dog_Bark_reference",
        "146Natural sounds_Wind_Howl (wind)_reference",
    }


def test_fsd50k_labels_and_uploaders(miniatures: Path) -> None:
    dataset = open_task("fsd50k", data=miniatures / "publisher")
    assert dataset.clips[0].labels == ("Bark", "Dog", "Animal")
    assert all(clip.group for clip in dataset.clips)


def notes(path: Path) -> list[tuple[float, float, str]]:
    return [(round(note.onset_s, 6), round(note.offset_s, 6), note.label) for note in read_notes(path)]


def performance(path: Path, *messages: tuple[str, int, int, float]) -> Path:
    """Write (type, note or controller, velocity or value, seconds) as MIDI, at 120 beats per minute."""
    track, before = mido.MidiTrack(), 0
    for kind, number, value, seconds in messages:
        now = round(seconds * 960)
        if kind == "control_change":
            track.append(mido.Message(kind, control=number, value=value, time=now - before))
        else:
            track.append(mido.Message(kind, note=number, velocity=value, time=now - before))
        before = now
    file = mido.MidiFile(ticks_per_beat=480)
    file.tracks.append(track)
    file.save(path)
    return path


def test_notes_without_a_pedal(tmp_path: Path) -> None:
    write_midi(tmp_path / "x.midi", [(0.5, 1.0, 60), (0.75, 2.0, 64), (2.0, 2.5, 60)])
    assert notes(tmp_path / "x.midi") == [(0.5, 1.0, "60"), (0.75, 2.0, "64"), (2.0, 2.5, "60")]


def test_the_pedal_holds_notes(tmp_path: Path) -> None:
    path = performance(
        tmp_path / "x.midi",
        ("note_on", 60, 70, 0.0),
        ("control_change", 64, 100, 0.5),
        ("note_off", 60, 0, 1.0),  # held by the pedal until 2.0
        ("note_on", 62, 70, 1.25),
        ("control_change", 64, 70, 1.5),  # still down
        ("note_on", 62, 0, 1.75),  # an off by another name; held
        ("control_change", 67, 0, 1.8),  # another pedal
        ("control_change", 64, 63, 2.0),
        ("note_on", 62, 70, 2.25),
        ("note_off", 62, 0, 2.5),
    )
    assert notes(path) == [(0.0, 2.0, "60"), (1.25, 2.0, "62"), (2.25, 2.5, "62")]


def test_a_key_that_is_struck_again_ends_its_note(tmp_path: Path) -> None:
    path = performance(
        tmp_path / "x.midi",
        ("control_change", 64, 127, 0.0),
        ("note_on", 60, 70, 0.5),
        ("note_off", 60, 0, 1.0),
        ("note_on", 60, 70, 1.5),
        ("note_off", 60, 0, 2.0),
        ("note_on", 72, 70, 2.25),  # never released: it ends with the performance
        ("control_change", 64, 0, 3.0),
        ("note_off", 61, 0, 3.5),
    )
    assert notes(path) == [(0.5, 1.5, "60"), (1.5, 3.0, "60"), (2.25, 3.5, "72")]


@pytest.mark.parametrize("data", [b"", b"MThd", b"RIFF....WAVE", b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\x10\0\x90"])
def test_an_invalid_midi_file_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.midi"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.midi: the MIDI file cannot be read"):
        read_notes(path)


def test_a_label_table_without_its_column_is_named(tmp_path: Path, shared_data: Path) -> None:
    write_miniature("esc50", "publisher", tmp_path / "esc50", shared_data)
    table = tmp_path / "esc50" / "ESC-50-master" / "meta" / "esc50.csv"
    table.write_text(table.read_text().replace("src_file", "source"))
    with pytest.raises(DataError, match=r"esc50\.csv: the column 'src_file' is missing"):
        open_task("esc50", data=tmp_path)


def test_an_archive_that_was_not_unpacked_is_named(tmp_path: Path) -> None:
    names_only(tmp_path / "ravdess", ["Audio_Speech_Actors_01-24.zip"])
    with pytest.raises(DataError, match=r"unpack .*Audio_Speech_Actors_01-24\.zip there first"):
        open_task("ravdess", data=tmp_path)


def test_a_known_dataset_opened_as_a_folder_of_classes_is_noted(tmp_path: Path) -> None:
    names_only(tmp_path / "Speech", ravdess_names())
    (note,) = open_task(str(tmp_path / "Speech")).problems
    assert "looks like the published dataset ravdess" in note


@pytest.mark.parametrize("card", CARDS)
def test_missing_data_is_an_error_with_a_remedy(tmp_path: Path, card: str) -> None:
    for data in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=f"{card}: cannot find the data; .*data fetch {card}"):
            open_task(card, data=data)
        assert describe_source(find_card(card), data) is None
    (tmp_path / card).mkdir()
    with pytest.raises(DataError, match="cannot find the data"):
        open_task(card, data=tmp_path)


def test_a_table_in_another_encoding_is_named(tmp_path: Path, shared_data: Path) -> None:
    write_miniature("clotho", "publisher", tmp_path / "clotho", shared_data)
    table = tmp_path / "clotho" / "clotho_captions_validation.csv"
    table.write_bytes(table.read_text().replace("loudly", "l\u00e4ut").encode("latin-1"))
    with pytest.raises(DataError, match=r"clotho_captions_validation\.csv: line \d+: cannot be read"):
        open_task("clotho", data=tmp_path)
    speech = tmp_path / "speechcommands_v1"
    names_only(speech, ["bed/00000000_nohash_0.wav", "validation_list.txt"])
    (speech / "testing_list.txt").write_bytes(b"\xff\n")
    with pytest.raises(DataError, match=r"testing_list\.txt: is not UTF-8"):
        open_task("speechcommands_v1", data=tmp_path)
