"""The fuzzed readers, the number of inputs for each, and the strategies that make well-formed inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from fuzz import structured, targets
from uwbench.audio import media

Strategy = Callable[[Sequence[bytes]], st.SearchStrategy[bytes]]


@dataclass(frozen=True, slots=True)
class Reader:
    """One reader: the number of `inputs` from atheris and, if there is a strategy, of those `made` by hypothesis."""

    name: str
    read: Callable[[Path, Path, bytes], None]
    inputs: int
    strategy: Strategy | None = None
    made: int = 0

    def read_safely(self, folder: Path, world: Path, data: bytes) -> None:
        """Read once so that everything is imported and set up; ignore the outcome."""
        with suppress(Exception):
            self.read(folder, world, data)


READERS = (
    Reader("card", targets.card, 40_000, structured.yaml_like, 500),
    Reader("suite", targets.suite, 40_000),
    Reader("protocol", targets.protocol, 20_000, structured.yaml_like, 300),
    Reader("manifest CSV", targets.manifest_csv, 150_000, structured.csv_rows, 1_500),
    Reader("manifest TSV", targets.manifest_tsv, 60_000),
    Reader("manifest CSV.GZ", targets.manifest_csv_gz, 60_000),
    Reader("manifest UTF-16", targets.manifest_csv, 60_000),
    Reader("manifest JSON", targets.manifest_json, 60_000, structured.json_like, 500),
    Reader("manifest JSONL", targets.manifest_jsonl, 150_000, structured.json_rows, 1_500),
    Reader("manifest Parquet", targets.manifest_parquet, 40_000, structured.manifest_tables, 1_000),
    Reader("form metadata", targets.form_metadata, 20_000, structured.csv_rows, 300),
    Reader("form NeMo", targets.form_nemo, 20_000, structured.json_rows, 500),
    Reader("form cuts", targets.form_cuts, 20_000, structured.json_rows, 500),
    Reader("form supervisions", targets.form_supervisions, 20_000, structured.json_rows, 500),
    Reader("form state", targets.form_state, 20_000, structured.json_like, 500),
    Reader("form Arrow", targets.form_arrow, 20_000, structured.arrow_streams, 500),
    Reader("form Parquet", targets.form_parquet, 20_000, structured.parquet_like, 500),
    Reader("form tar", targets.form_tar, 20_000, structured.tars, 500),
    Reader("shard", targets.shard, 60_000, structured.tars, 1_500),
    Reader("training rows", targets.training_rows, 20_000, structured.row_tables, 500),
    Reader("zip", targets.zip_file, 60_000, structured.zips, 1_500),
    Reader("tar.gz", targets.tar_gz, 60_000),
    Reader("audio WAV", targets.audio, 50_000),
    Reader("audio FLAC", targets.audio, 40_000),
    Reader("audio OGG", targets.audio, 40_000),
    Reader("audio MP3", targets.audio, 40_000),
    Reader("audio others", targets.audio, 40_000),
    *([Reader("audio media", targets.audio, 40_000)] if media.is_installed() else []),  # with the extra `media`
    Reader("MIDI notes", targets.midi, 25_000),
    Reader("encoder.json", targets.encoder_json, 25_000, structured.json_like, 1_000),
    Reader("store manifest", targets.store_manifest, 30_000, structured.json_like, 1_000),
    Reader("store vectors", targets.store_vectors, 10_000, structured.arrow_like, 500),
    Reader("store frames", targets.store_frames, 10_000, structured.arrow_like, 500),
    Reader("clip table", targets.table_of_clips, 30_000, structured.parquet_like, 600),
    Reader("scan memory", targets.scan_memory, 8_000, structured.parquet_like, 300),
    Reader("extractor settings", targets.extractor, 20_000, structured.json_like, 500),
    Reader("result", targets.result_file, 120_000, structured.json_like, 1_500),
    Reader("predictions", targets.predictions, 10_000, structured.parquet_like, 500),
    Reader("bundle", targets.bundle, 30_000, structured.zips, 500),
    Reader("bundle contents", targets.bundle_contents, 20_000, structured.json_like, 500),
    Reader("bundle digests", targets.bundle_digests, 8_000, structured.parquet_like, 300),
)
