"""Write datasets of a few dozen clips with the names, folders and tables of their publishers."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import mido
import numpy as np

from miniatures.bank import Bank, write_audio
from miniatures.tables import write_lines, write_table

_VIDEO = "dQw4w9W{:04d}"  # an identifier of eleven characters, like YouTube's


def asvspoof2015(folder: Path, bank: Bank) -> None:
    parts = (("train", "trn", "T", 6), ("develop", "ndx", "D", 3), ("evaluation", "ndx", "E", 3))
    for part, suffix, letter, speakers in parts:
        lines = []
        for speaker in range(1, speakers + 1):
            for index, method in enumerate(("human", "S1", "S3")):
                name = f"{letter}{speaker:03d}{index:04d}"
                label = "human" if method == "human" else "spoof"
                lines.append(f"{letter}{speaker} {name} {method} {label}")
                samples = bank.cut("speech", label == "spoof", 1.0, 16_000)
                write_audio(folder / "wav" / f"{letter}{speaker}" / f"{name}.wav", samples, 16_000)
        write_lines(folder / "CM_protocol" / f"cm_{part}.{suffix}", lines)


def cremad(folder: Path, bank: Bank) -> None:
    # Actors 1001 to 1006, and some of the valid and test actors of TensorFlow Datasets.
    for actor in (1001, 1002, 1003, 1004, 1005, 1006, 1015, 1020, 1010, 1013):
        for index, emotion in enumerate(("ANG", "HAP", "SAD", "NEU")):
            samples = bank.cut("speech", index, 1.3, 16_000)
            write_audio(folder / "AudioWAV" / f"{actor}_IEO_{emotion}_HI.wav", samples, 16_000)
    write_table(
        folder / "VideoDemographics.csv",
        ("ActorID", "Age", "Sex", "Race", "Ethnicity"),
        [(1001, 51, "Male", "Caucasian", "Not Hispanic")],
    )


def ravdess(folder: Path, bank: Bank) -> None:
    for actor in range(1, 9):
        for emotion in (1, 3, 4, 5):
            name = f"03-01-{emotion:02d}-01-01-01-{actor:02d}.wav"
            samples = bank.cut("speech", emotion, 1.5, 48_000)
            write_audio(folder / "Audio_Speech_Actors_01-24" / f"Actor_{actor:02d}" / name, samples, 48_000)


def fluentspeechcommands(folder: Path, bank: Bank) -> None:
    root = folder / "fluent_speech_commands_dataset"
    phrases = (
        ("Change language", "change language", "none", "none"),
        ("That\u2019s too loud", "decrease", "volume", "none"),
        ("It\u2019s too loud, turn it down", "decrease", "volume", "none"),
        ("Set my phone's language to English", "change language", "English", "none"),
    )
    serial = count()
    for split, speakers in (("train", 6), ("valid", 2), ("test", 2)):
        rows = []
        for speaker in range(speakers):
            name = f"{split}Spk{speaker:02d}"
            for index, (text, *intent) in enumerate(phrases):
                path = f"wavs/speakers/{name}/{next(serial):08x}-45b1-11e9-81ce-69b74fd7e64e.wav"
                rows.append((len(rows), path, name, text, *intent))
                write_audio(root / path, bank.cut("speech", index, 1.0, 16_000), 16_000)
        header = ("", "path", "speakerId", "transcription", "action", "object", "location")
        write_table(root / "data" / f"{split}_data.csv", header, rows)


def libricount(folder: Path, bank: Bank) -> None:
    for speakers in range(4):
        for index in range(8):
            stem = folder / "test" / f"{speakers}_{4000 + 10 * speakers + index}"
            parts = [bank.cut("speech", index + voice, 5.0, 16_000) for voice in range(speakers)]
            mixture = sum(parts, np.zeros((80_000, 1), np.float32)) / max(speakers, 1)
            write_audio(stem.with_suffix(".wav"), mixture + 1e-3 * bank.cut("sound", index, 5.0, 16_000), 16_000)
            activity = [
                {"sex": "F", "activity": [[0, 80_000]], "speaker_id": 1000 + voice} for voice in range(speakers)
            ]
            stem.with_suffix(".json").write_text(json.dumps(activity))


def librispeech(folder: Path, bank: Bank) -> None:
    root = folder / "LibriSpeech"
    digits = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
    lines = [";ID  |SEX| SUBSET           |MINUTES| NAME"]
    parts = (("train-clean-100", (103, 1034, 1040, 1069)), ("dev-clean", (84, 174)), ("test-clean", (61, 121)))
    for part, speakers in parts:
        for index, speaker in enumerate(speakers):
            lines.append(f"{speaker:<5}| {'MF'[index % 2]} | {part:<16} | 25.03 | Somebody")
            chapter = root / part / str(speaker) / "1240"
            transcripts = []
            for utterance in range(4):
                name = f"{speaker}-1240-{utterance:04d}"
                number = (utterance + 3 * (index % 2)) % 10
                transcripts.append(f"{name} {digits[number]}")
                write_audio(chapter / f"{name}.flac", bank.cut("speech", number, 1.0, 16_000), 16_000)
            write_lines(chapter / f"{speaker}-1240.trans.txt", transcripts)
    write_lines(root / "SPEAKERS.TXT", lines)


def speechcommands_v1(folder: Path, bank: Bank) -> None:
    lists: dict[str, list[str]] = {"validation_list.txt": [], "testing_list.txt": []}
    for index, word in enumerate(("bed", "bird", "zero", "yes")):
        for take in range(8):
            name = f"{word}/{0x0A7C2A8D + take:08x}_nohash_0.wav"
            write_audio(folder / name, bank.cut("speech", index, 1.0, 16_000), 16_000)
            if take >= 5:
                lists["validation_list.txt" if take == 5 else "testing_list.txt"].append(name)
    write_audio(folder / "_background_noise_" / "white_noise.wav", bank.cut("sound", 0, 2.0, 16_000), 16_000)
    for name, lines in lists.items():
        write_lines(folder / name, lines)


def vocalsound(folder: Path, bank: Bank) -> None:
    people = {"tr": ("f0003", "m0005", "f0010", "m0012", "f0021"), "val": ("m0088", "f0089"), "te": ("f0150", "m0151")}
    for part, speakers in people.items():
        header = ("spk_id", "gender", "age", "country", "language", "health")
        rows = [(s, "female" if s[0] == "f" else "male", 30, "United States", "English", "no") for s in speakers]
        write_table(folder / "meta" / f"{part}_meta.csv", header, rows)
        for speaker in speakers:
            for index, sound in enumerate(("laughter", "cough", "sneeze", "throatclearing")):
                samples = bank.cut("sound", index, 1.0, 16_000)
                write_audio(folder / "audio_16k" / f"{speaker}_0_{sound}.wav", samples, 16_000)


def vocalimitation(folder: Path, bank: Bank) -> None:
    root = folder / "VocalImitationSet"
    references = (
        "000Animal_Domestic animals_ pets_Cat_Growling",
        "004Animal_Domestic animals_ pets_Dog_Bark",
        "146Natural sounds_Wind_Howl (wind)",
    )
    header = (
        "imitation_filename",
        "category_id",
        "reference_filename",
        "included",
        "draft",
        "training",
        "participant_id",
    )
    rows = []
    for index, reference in enumerate(references):
        for take in range(9):
            name = f"{reference}-{5_734_240_000_000_000 + 31 * take + index}.wav"
            included = take < 8
            person = f"{5_734_240_000_000_000 + 10_000_000_000 * take}.0"
            rows.append((name, index, f"{reference}_reference.wav", included, not included, False, person))
            place = "included" if included else "excluded"
            samples = bank.cut("sound", index, 1.0, 44_100)
            write_audio(root / "vocal_imitations" / place / name, samples, 44_100)
    write_table(root / "vocal_imitations.txt", header, rows, delimiter="\t")


def voxceleb1(folder: Path, bank: Bank) -> None:
    lines = []
    for index in range(4):
        speaker = f"id{10_001 + index * 300}"
        for video in range(3):
            for take in range(3):
                name = f"{speaker}/{_VIDEO.format(10 * index + video)}/{take + 1:05d}.wav"
                part = 2 if video == 1 else 3 if video == 2 else 1
                lines.append(f"{part} {name}")
                write_audio(folder / "wav" / name, bank.cut("speech", index, 1.5, 16_000), 16_000)
    write_lines(folder / "iden_split.txt", lines)


def voxlingua33(folder: Path, bank: Bank) -> None:
    serial = count()
    for index, language in enumerate(("en", "et", "uk", "zh")):
        for place, clips in ((folder / language, 6), (folder / "dev" / language, 3)):
            for clip in range(clips):
                name = f"{_VIDEO.format(next(serial))}__U__S{clip}---0012.000-0014.000.wav"
                write_audio(place / name, bank.cut("speech", index, 2.0, 16_000), 16_000)


def clotho(folder: Path, bank: Bank) -> None:
    for part, clips in (("development", 10), ("validation", 5), ("evaluation", 5)):
        rows = []
        for clip in range(clips):
            name = f"{part} field {clip}.wav"
            write_audio(folder / part / name, bank.cut("sound", clip, 2.0, 44_100), 44_100)
            rows.append((name, *(f'Something number {clip} sounds, said {k} times, "loudly".' for k in range(5))))
        header = ("file_name", *(f"caption_{k}" for k in range(1, 6)))
        write_table(folder / f"clotho_captions_{part}.csv", header, rows)


def desed(folder: Path, bank: Bank) -> None:
    names = ("Dog", "Frying", "Blender")
    rows = []
    for clip in range(9):
        name = f"Y{_VIDEO.format(clip)}_{clip}.000_{clip + 10}.000.wav"
        labels = (names[clip % 3],) if clip % 4 else (names[clip % 3], "Speech")
        rows.append((name, ",".join(labels)))
        write_audio(folder / "audio" / "train" / "weak" / name, bank.cut("sound", clip % 3, 10.0, 16_000), 16_000)
    write_table(folder / "metadata" / "train" / "weak.tsv", ("filename", "event_labels"), rows, "\t")
    events: list[tuple[object, ...]] = []
    for clip in range(6):
        name = f"Y{_VIDEO.format(100 + clip)}_30.000_40.000.wav"
        samples = np.zeros((160_000, 1), np.float32)
        if clip < 5:
            samples[32_000:112_000] = bank.cut("sound", clip % 3, 5.0, 16_000)
            events.append((name, "2.000", "7.000", names[clip % 3]))
        else:
            samples += bank.cut("sound", 9, 10.0, 16_000)
            events.append((name, "", "", ""))
        write_audio(folder / "audio" / "validation" / "validation" / name, samples, 16_000)
    header = ("filename", "onset", "offset", "event_label")
    write_table(folder / "metadata" / "validation" / "validation.tsv", header, events, "\t")


def esc50(folder: Path, bank: Bank) -> None:
    root = folder / "ESC-50-master"
    rows = []
    for fold in range(1, 6):
        for target, category in ((0, "dog"), (1, "rooster"), (10, "rain"), (40, "helicopter")):
            for take in ("A", "B"):
                source = 100_000 + 1_000 * target + fold
                name = f"{fold}-{source}-{take}-{target}.wav"
                rows.append((name, fold, target, category, target != 0, source, take))
                write_audio(root / "audio" / name, bank.cut("sound", target, 1.5, 44_100), 44_100)
    write_table(
        root / "meta" / "esc50.csv", ("filename", "fold", "target", "category", "esc10", "src_file", "take"), rows
    )


def fsd50k(folder: Path, bank: Bank) -> None:
    classes = (("Bark", "Dog", "Animal"), ("Rain", "Water"), ("Crow", "Bird", "Animal"))
    serial = count(64_760)
    tables: dict[str, list[tuple[object, ...]]] = {"dev": [], "eval": []}
    info: dict[str, dict[str, dict[str, str]]] = {"dev": {}, "eval": {}}
    for part, split, clips in (("dev", "train", 15), ("dev", "val", 6), ("eval", "", 6)):
        for clip in range(clips):
            name = str(next(serial))
            names, mids = ",".join(classes[clip % 3]), ",".join(f"/m/0{k}" for k in classes[clip % 3])
            tables[part].append((name, names, mids, split) if split else (name, names, mids))
            info[part][name] = {"title": "x", "uploader": f"{part}{split}{clip // 3}", "license": "CC0"}
            write_audio(
                folder / f"FSD50K.{part}_audio" / f"{name}.wav", bank.cut("sound", clip % 3, 1.5, 44_100), 44_100
            )
    write_table(folder / "FSD50K.ground_truth" / "dev.csv", ("fname", "labels", "mids", "split"), tables["dev"])
    write_table(folder / "FSD50K.ground_truth" / "eval.csv", ("fname", "labels", "mids"), tables["eval"])
    for part, entries in info.items():
        write_lines(folder / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json", [json.dumps(entries)])


def fsdkaggle2018(folder: Path, bank: Bank) -> None:
    labels = ("Bark", "Cello", "Gunshot_or_gunfire", "Hi-hat")
    serial = count()
    for part, table, clips in (
        ("train", "train_post_competition", 6),
        ("test", "test_post_competition_scoring_clips", 3),
    ):
        rows = []
        for index, label in enumerate(labels):
            for clip in range(clips):
                name = f"{next(serial):08x}.wav"
                source = 300_000 + 100 * index + clip + (50 if part == "test" else 0)
                extra = clip % 2 if part == "train" else "Public"
                rows.append((name, label, extra, source, "Creative Commons 0"))
                path = folder / f"FSDKaggle2018.audio_{part}" / name
                write_audio(path, bank.cut("sound", index, 1.5, 44_100), 44_100)
        third = "manually_verified" if part == "train" else "usage"
        header = ("fname", "label", third, "freesound_id", "license")
        write_table(folder / "FSDKaggle2018.meta" / f"{table}.csv", header, rows)


def urbansound8k(folder: Path, bank: Bank) -> None:
    root = folder / "UrbanSound8K"
    rows = []
    names = {1: "car_horn", 3: "dog_bark", 6: "gun_shot"}
    for fold in range(1, 11):
        for label, name in names.items():
            source = 100_000 + 100 * fold + label
            file = f"{source}-{label}-0-{fold}.wav"
            rows.append((file, source, 0.0, 1.5, 1, fold, label, name))
            rate = 44_100 if fold % 2 else 8_000
            write_audio(root / "audio" / f"fold{fold}" / file, bank.cut("sound", label, 1.5, rate, 1 + fold % 2), rate)
    header = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")
    write_table(root / "metadata" / "UrbanSound8K.csv", header, rows)


def fma_small(folder: Path, bank: Bank) -> None:
    groups = ("", "artist", "set", "set", "track")
    names = ("", "id", "split", "subset", "genre_top")
    genres = ("Hip-Hop", "Folk", "Rock", "International")
    rows: list[tuple[object, ...]] = [("track_id", "", "", "", "")]
    serial = count(2)
    for split, clips in (("training", 5), ("validation", 2), ("test", 2)):
        for index, genre in enumerate(genres):
            for clip in range(clips):
                track = 1000 * (next(serial) % 3) + next(serial)
                rows.append((track, 10_000 * len(split) + 100 * index + clip, split, "small", genre))
                path = folder / "fma_small" / f"{track:06d}"[:3] / f"{track:06d}.mp3"
                write_audio(path, bank.cut("music", index, 2.0, 44_100, 2), 44_100)
    rows.append((99_999, 1, "training", "large", "Rock"))
    write_table(folder / "fma_metadata" / "tracks.csv", groups, [names, *rows])


def gtzan(folder: Path, bank: Bank) -> None:
    for index, genre in enumerate(("blues", "classical", "hiphop", "rock")):
        for clip in range(10):
            samples = bank.cut("music", index, 2.0, 22_050)
            write_audio(folder / "genres" / genre / f"{genre}.{clip:05d}.wav", samples, 22_050)


def nsynth(folder: Path, bank: Bank) -> None:
    families = (("bass", 1), ("flute", 3), ("guitar", 0), ("organ", 6))
    for split, instruments in (("train", 3), ("valid", 1), ("test", 1)):
        examples = {}
        for index, (family, code) in enumerate(families):
            for instrument in range(instruments):
                for pitch in (48, 60):
                    number = instrument + {"train": 0, "valid": 50, "test": 80}[split]
                    name = f"{family}_acoustic_{number:03d}-{pitch:03d}-075"
                    examples[name] = {
                        "note_str": name,
                        "instrument_str": f"{family}_acoustic_{number:03d}",
                        "instrument_family": code,
                        "instrument_family_str": family,
                        "instrument_source_str": "acoustic",
                        "pitch": pitch,
                        "velocity": 75,
                        "sample_rate": 16_000,
                    }
                    path = folder / f"nsynth-{split}" / "audio" / f"{name}.wav"
                    write_audio(path, bank.cut("music", index, 2.0, 16_000), 16_000)
        write_lines(folder / f"nsynth-{split}" / "examples.json", [json.dumps(examples)])


def maestro(folder: Path, bank: Bank) -> None:
    root = folder / "maestro-v3.0.0"
    rows = []
    for index in range(9):
        split = "test" if index >= 7 else "validation" if index >= 5 else "train"
        stem = f"{2004 + index % 3}/MIDI-Unprocessed_XP_{index:02d}_R1_2004_01_ORIG_MID--AUDIO"
        samples, notes = piano_roll(bank, index, 44_100)
        write_audio(root / f"{stem}.wav", np.repeat(samples, 2, axis=1), 44_100)
        write_midi(root / f"{stem}.midi", notes)
        rows.append((f"Composer {index}", f"Sonata, No. {index}", split, 2004, f"{stem}.midi", f"{stem}.wav", 4.0))
    header = ("canonical_composer", "canonical_title", "split", "year", "midi_filename", "audio_filename", "duration")
    write_table(root / "maestro-v3.0.0.csv", header, rows)


def piano_roll(bank: Bank, number: int, rate: int) -> tuple[np.ndarray, list[tuple[float, float, int]]]:
    """Return four seconds with three real tones at known times, and (start, end, MIDI pitch) of each."""
    samples = np.zeros((4 * rate, 1), np.float32)
    notes = []
    for index, start in enumerate((0.25, 1.5, 2.75)):
        tone, pitch = bank.note(number + index, 1.0, rate)
        at = round(start * rate)
        samples[at : at + len(tone), 0] += tone
        notes.append((start, start + len(tone) / rate, pitch))
    return samples, notes


def write_midi(path: Path, notes: list[tuple[float, float, int]]) -> None:
    """Write notes as a piano performance at 120 beats per minute, 480 ticks per beat."""
    events = [(start, 1, pitch) for start, _, pitch in notes] + [(end, 0, pitch) for _, end, pitch in notes]
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=500_000, time=0)])
    before = 0
    for seconds, down, pitch in sorted(events):
        now = round(seconds * 960)
        track.append(mido.Message("note_on", note=pitch, velocity=70 * down, time=now - before))
        before = now
    file = mido.MidiFile(type=1, ticks_per_beat=480)
    file.tracks.append(track)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save(path)


WRITERS: dict[str, Callable[[Path, Bank], None]] = {
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
    "maestro": maestro,
    "nsynth": nsynth,
    "ravdess": ravdess,
    "speechcommands_v1": speechcommands_v1,
    "urbansound8k": urbansound8k,
    "vocalimitation": vocalimitation,
    "vocalsound": vocalsound,
    "voxceleb1": voxceleb1,
    "voxlingua33": voxlingua33,
}
