"""The real files that fuzzing starts from: cards, clips, the cache of an extraction, results, shards."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

import media_files
from miniatures.publishers import write_midi
from miniatures.xares import write_tar
from uniwhisper.data.rows import SUFFIX
from uniwhisper.data.shards import Asked, Item, write_shards
from uwbench import api
from uwbench.audio import media
from uwbench.audio.clip import AudioFile

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SHARED = Path(os.environ.get("UWBENCH_SHARED", ROOT.parent / "shared"))
GOLDEN = ROOT / "tests" / "golden"
TASKS = ROOT / "tasks"
_CLIPS = 6
_SHORT_S = 0.12  # length of the clips: decoding takes most of a trial's time


def fast_folder() -> Path:
    """Return a new folder, in memory if the system has such a place: a trial writes one file per input."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="uwbench-fuzz-", dir=memory if os.access(memory, os.W_OK) else None))


def make_world(world: Path, shared: Path = SHARED) -> None:
    """Make `world/cache`, `world/rows` and `world/seeds/<reader>/<number>` from real files."""
    clips = _clips(world / "clips", shared / "data")
    _extract(world, clips)
    _pack(world / "rows", clips)
    for name, seeds in _seeds(world, shared / "data", clips):
        folder = world / "seeds" / name
        folder.mkdir(parents=True)
        for number, data in enumerate(seeds):
            (folder / f"{number:02d}").write_bytes(data)


def _clips(folder: Path, data: Path) -> list[Path]:
    """Return some spoken digits, cut to a fraction of a second."""
    folder.mkdir(parents=True)
    names = [f"{digit}_{who}_{take}.wav" for digit, who in ((0, "jackson"), (1, "theo")) for take in range(_CLIPS // 2)]
    for name in names:
        samples, rate = soundfile.read(data / "fsdd" / "recordings" / name, dtype="int16")
        soundfile.write(folder / name, samples[: int(rate * _SHORT_S)], rate)
    return [folder / name for name in names]


def _rows(clips: Sequence[Path]) -> list[dict[str, object]]:
    splits = ("train", "valid", "test")
    return [
        {"path": clip.name, "label": clip.name[0], "group": clip.stem[2:-2], "split": splits[number % len(splits)]}
        for number, clip in enumerate(clips)
    ]


def _extract(world: Path, clips: Sequence[Path]) -> None:
    """Make a small store as a user would: one task of labels and one of events, which keeps frames too."""
    folder = clips[0].parent
    (folder / "digits.csv").write_text(_csv(_rows(clips), ","))
    events = [{"onset": 0.0, "offset": 0.05, "label": "voice"}]
    lines = [{**row, "label": events} for row in _rows(clips)]
    (folder / "events.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for manifest, kind in (("digits.csv", "single-label"), ("events.jsonl", "frame-multi-label")):
        task = api.TaskSpec(folder / manifest, kind=kind, name=Path(manifest).stem)
        report = api.extract("mfcc", task, cache=world / "cache", results=world / "results")
        assert not report.failures, report.failures
    shutil.rmtree(world / "cache" / ".locks", ignore_errors=True)


def _pack(folder: Path, clips: Sequence[Path]) -> None:
    items = [
        Item("fsdd", "train", clip.name, "speech", "CC BY-SA 4.0", AudioFile(clip), (Asked("keyword", ("zero",)),))
        for clip in clips
    ]
    write_shards(folder, items, workers=1)


def _csv(rows: Sequence[dict[str, object]], delimiter: str) -> str:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()


def _seeds(world: Path, data: Path, clips: list[Path]) -> Iterator[tuple[str, list[bytes]]]:
    yield "card", _texts(TASKS, "mini_*.yaml", "esc50.yaml", "desed.yaml", "clotho.yaml", "vocalsound.yaml")
    yield "suite", _texts(TASKS / "suites", "*.yaml")
    yield "protocol", _texts(TASKS / "protocols", "*.yaml")
    yield from _manifests(clips)
    yield from _forms(world, clips)
    yield from _archives(world, clips)
    yield from _audio(data, clips)
    (folder,) = (path.parent for path in (world / "cache").glob("*/encoder.json"))
    yield "encoder.json", [(folder / "encoder.json").read_bytes()]
    yield "store manifest", [path.read_bytes() for path in sorted(folder.glob("*/manifest.json"))]
    yield "store vectors", [(folder / "events" / "pooled-00000.arrow").read_bytes()]
    yield "store frames", [(folder / "events" / "frames-00000.arrow").read_bytes()]
    tables = sorted((world / "cache" / "clips").glob("*.parquet"))
    yield "clip table", [path.read_bytes() for path in tables if ".scan." not in path.name]
    yield "scan memory", [path.read_bytes() for path in tables if ".scan." in path.name]
    yield "extractor settings", _extractors()
    yield from _bundles(world)
    for name, suffix in (("result", "json"), ("predictions", "parquet")):  # the newest schema first
        yield name, [path.read_bytes() for path in sorted(GOLDEN.glob(f"[0-9]/*.{suffix}"), reverse=True)]


def _bundles(world: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Yield a bundle of the digits, its list of members with one member alone, and its hashes."""
    api.probe("mfcc", "digits", methods="knn", cache=world / "cache", results=world / "results")
    path = world / "bundle.zip"
    api.bundle("mfcc", path, cache=world / "cache", results=world / "results")
    yield "bundle", [path.read_bytes()]
    with zipfile.ZipFile(path) as archive:
        contents = json.loads(archive.read("bundle.json"))
        member = {"bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
        contents["files"] = {"results/a/b/c/d.json": member}
        yield "bundle contents", [json.dumps(contents).encode()]
        yield "bundle digests", [archive.read(name) for name in archive.namelist() if name.startswith("digests/")]


def _extractors() -> list[bytes]:
    """Return settings as published checkpoints hold them: on their own, and nested as transformers 5 writes them."""
    whisper = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80, "hop_length": 160}
    whisper |= {"chunk_length": 30, "n_fft": 400, "n_samples": 480_000, "nb_max_frames": 3000, "dither": 0.0}
    waveform = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "do_normalize": True}
    ast = {"feature_extractor_type": "ASTFeatureExtractor", "max_length": 1024, "num_mel_bins": 128, "mean": -4.27}
    bert = {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "feature_size": 80, "stride": 2}
    common = {"padding_side": "right", "padding_value": 0.0, "return_attention_mask": False, "sampling_rate": 16_000}
    plain = [settings | common for settings in (whisper, waveform, ast, bert)]
    nested = [{"feature_extractor": settings, "processor_class": "AutoProcessor"} for settings in plain]
    return [json.dumps(settings, indent=indent).encode() for settings in plain + nested for indent in (None, 2)]


def _texts(folder: Path, *patterns: str) -> list[bytes]:
    return [path.read_bytes() for pattern in patterns for path in sorted(folder.glob(pattern))]


def _manifests(clips: Sequence[Path]) -> Iterator[tuple[str, list[bytes]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = _rows(clips)
    several = [{**row, "label": "a; b"} for row in rows]
    events = [{**row, "label": [{"onset": 0, "offset": 0.5, "label": "a"}]} for row in rows]
    timed = [{**row, "start": "0.5", "end": "1"} for row in rows]
    folds = [{"path": row["path"], "label": row["label"], "fold": row["split"] == "test"} for row in rows]
    kinds = [rows[:3], several[:3], timed[:3], folds[:4]]
    written = [{**row, "label": json.dumps(row["label"])} for row in events[:3]]
    for name, delimiter in (("manifest CSV", ","), ("manifest TSV", "\t")):
        yield name, [_csv(some, delimiter).encode() for some in [*kinds, written]]
    texts = [_csv(some, mark) for some, mark in zip([*kinds, written], ",;|\t,", strict=True)]
    yield "manifest CSV.GZ", [*(text.encode() for text in texts), *(gzip.compress(text.encode()) for text in texts)]
    encodings = ("utf-16", "utf-16-le", "utf-16-be")
    yield "manifest UTF-16", [text.encode(encoding) for text in texts for encoding in encodings]
    yield (
        "manifest JSON",
        [json.dumps(some, indent=indent).encode() for some in [*kinds, events[:3]] for indent in (None, 1)],
    )
    yield "manifest JSONL", ["\n".join(map(json.dumps, some)).encode() for some in [*kinds, events[:3]]]
    tables = []
    for some in [*kinds, events[:3]]:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(some), sink)
        tables.append(sink.getvalue().to_pybytes())
    yield "manifest Parquet", tables


def _forms(world: Path, clips: Sequence[Path]) -> Iterator[tuple[str, list[bytes]]]:
    """Yield files as `datasets`, NeMo, Lhotse and WebDataset write them; save a dataset to `world/saved`."""
    rows = [{"file_name": row["path"], "label": row["label"], "speaker": row["group"]} for row in _rows(clips)]
    by_folder = [{**row, "file_name": f"{('train', 'test')[i % 2]}/{row['file_name']}"} for i, row in enumerate(rows)]
    tables = [rows, by_folder, [{**row, "label": "a;b"} for row in by_folder]]
    yield "form metadata", [_csv(table, ",").encode() for table in tables]
    nemo = [
        {"audio_filepath": row["file_name"], "duration": 0.1, "offset": 0.01, **row, "text": "zero"} for row in rows
    ]
    yield "form NeMo", [_lines(nemo), _lines([{**row, "label": ["a", "b"]} for row in nemo])]
    yield from _cuts(clips)
    folder = _saved(world / "saved", clips)
    yield (
        "form state",
        [(folder / name).read_bytes() for name in ("state.json", "dataset_info.json")]
        + [json.dumps({"splits": ["train", "test"]}).encode()],
    )
    yield "form Arrow", [path.read_bytes() for path in folder.glob("*.arrow")]
    yield "form Parquet", [path.read_bytes() for path in sorted(world.glob("*.parquet"))]
    tars = []
    for kind, labels in (("json", [b'{"label": "a", "speaker": 1}', b'{"label": "b"}']), ("cls", [b"a", b"b"])):
        path = world / "own.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for clip, label in zip(clips, labels * 3, strict=True):
                for name, data in ((clip.name, clip.read_bytes()[:200]), (f"{clip.stem}.{kind}", label)):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        tars.append(path.read_bytes())
        path.unlink()
    yield "form tar", tars


def _lines(rows: Sequence[object]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def _cuts(clips: Sequence[Path]) -> Iterator[tuple[str, list[bytes]]]:
    """Yield cuts, and supervisions each with its recording, as Lhotse writes them."""
    cuts: list[object] = []
    pairs: list[object] = []
    for clip in clips:
        source = {"type": "file", "channels": [0], "source": clip.name}
        recording = {"id": clip.stem, "sources": [source], "sampling_rate": 8000, "num_samples": 960}
        recording |= {"duration": 0.12, "channel_ids": [0]}
        supervision = {"id": clip.stem, "recording_id": clip.stem, "start": 0.0, "duration": 0.12, "channel": 0}
        supervision |= {"text": "zero", "speaker": clip.stem[2:-2], "custom": {"digit": clip.name[0]}}
        cut = {"id": clip.stem, "start": 0.01, "duration": 0.1, "channel": 0, "supervisions": [supervision]}
        cuts.append(cut | {"recording": recording, "type": "MonoCut", "custom": {"take": 1}})
        pairs += [supervision, recording]
    yield "form cuts", [_lines(cuts), _lines(cuts[:2])]
    yield "form supervisions", [_lines(pairs)]


def _saved(folder: Path, clips: Sequence[Path]) -> Path:
    """Save a dataset of the clips' first bytes with `datasets`, and as Parquet beside the folder."""
    import datasets

    features = datasets.Features(
        {
            "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "label": datasets.ClassLabel(names=["zero", "one"]),
            "tags": datasets.List(datasets.ClassLabel(names=["a", "b"])),
        }
    )
    rows = [
        {"audio": {"bytes": clip.read_bytes()[:200], "path": clip.name}, "label": int(clip.name[0]), "tags": [1, 0]}
        for clip in clips
    ]
    made = datasets.Dataset.from_list(rows, features=features)
    made.save_to_disk(folder)
    made.to_parquet(str(folder.with_suffix(".parquet")))
    return folder


def _archives(world: Path, clips: Sequence[Path]) -> Iterator[tuple[str, list[bytes]]]:
    labels = [{"label": "zero"}, {"label": ["a b", "c d"]}, {"label": [{"start": 0.0, "end": 0.5, "note": 60}]}]
    tars = []
    for number, label in enumerate(labels):
        path = world / "seed.tar"
        write_tar(path, [(clip.stem, "wav", clip.read_bytes()[:600], label) for clip in clips[:2]])
        tars.append(path.read_bytes())
        with tarfile.open(
            path, "w", format=(tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)[number]
        ) as tar:
            for name, data in (
                ("n\u00e4me" * (20 if number < 2 else 2) + ".json", b'{"label": "1"}'),
                ("a.wav", b"audio"),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        tars.append(path.read_bytes())
        path.unlink()
    yield "shard", [data[:8192] if len(data) > 20_000 else data for data in tars]
    folder = world / "rows"
    yield "training rows", [path.read_bytes() for path in sorted(folder.glob(f"*{SUFFIX}"))]
    zips = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w", method) as file:
            file.writestr("a/b.txt", b"text " * 20)
            file.writestr("c.wav", clips[0].read_bytes()[:300])
        zips.append(sink.getvalue())
    yield "zip", zips
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as tar:
        tar.add(clips[0], "a.wav")
    yield "tar.gz", [sink.getvalue()]


def _audio(data: Path, clips: Sequence[Path]) -> Iterator[tuple[str, list[bytes]]]:
    music = min((data / "philharmonia" / "audio").glob("*.mp3"), key=lambda path: path.stat().st_size)
    sound = min((data / "esc10" / "audio").glob("*.ogg"), key=lambda path: path.stat().st_size)
    samples, rate = soundfile.read(sound, dtype="float32")
    loudest = min(int(np.abs(samples).argmax()), len(samples) - rate)
    short = samples[loudest : loudest + int(rate * _SHORT_S)]
    stereo = np.stack([short, -short], axis=1)

    def encoded(audio: np.ndarray, form: str, subtype: str | None = None) -> bytes:
        sink = io.BytesIO()
        soundfile.write(sink, audio, rate, format=form, subtype=subtype)
        return sink.getvalue()

    waves = [("WAV", kind) for kind in ("PCM_U8", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM", "GSM610")]
    rare = [encoded(short[:400], form) for form in ("AIFF", "AU", "W64", "CAF", "RF64", "NIST", "SVX", "VOC", "MAT5")]
    cut = short[:800]
    whole = sound.read_bytes()
    yield "audio WAV", [clips[0].read_bytes(), *(encoded(cut, form, kind) for form, kind in waves)]
    yield "audio FLAC", [encoded(cut, "FLAC"), encoded(stereo[:800], "FLAC", "PCM_24")]
    yield (
        "audio OGG",
        [
            whole[:6000],
            encoded(cut, "OGG", "VORBIS"),
            encoded(cut, "OGG", "OPUS") if rate == 48_000 else encoded(stereo, "OGG"),
        ],
    )
    if media.is_installed():
        yield "audio media", [media_files.encoded(suffix, short, 48_000) for suffix in media_files.FORMATS]
    mp3 = encoded(short, "MP3")
    yield "audio MP3", [music.read_bytes()[:3000], encoded(cut, "MP3"), bytes(100) + mp3, b"not frames" * 40 + mp3]
    yield "audio others", rare
    path = clips[0].parent / "seed.midi"
    write_midi(path, [(0.5, 1.0, 60), (1.0, 2.0, 62)])
    yield "MIDI notes", [path.read_bytes()]
