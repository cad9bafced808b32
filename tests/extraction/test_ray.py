"""Many machines leave the same cache as one, even if one of them is lost half way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from conftest import missing
from uwbench.audio.clip import AudioFile, Clip
from uwbench.cards.card import Card
from uwbench.encoders.base import ModelSpec
from uwbench.encoders.resolve import open_encoder
from uwbench.errors import EncoderError
from uwbench.extraction.extract import extract
from uwbench.extraction.forward import Settings
from uwbench.extraction.identity import describe_encoder
from uwbench.extraction.plan import Plan, make_plan
from uwbench.extraction.ray import extract_on_ray, part_of
from uwbench.extraction.task import scan_task

pytestmark = pytest.mark.slow
SETTINGS = Settings("cpu", batch_seconds=8.0, workers=1)
ROOT = Path(__file__).resolve().parents[2]
SPEC = ModelSpec("logmel")
# Logs which process encodes a batch, and is slow, so that a node can be killed in the middle of a part.
SLOW = """
import os, time
from pathlib import Path
from spectrum_encoder import SpectrumEncoder

def note(batch):
    with Path(__file__).with_name("batches").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(0.1)

class Slow(SpectrumEncoder):
    def __init__(self):
        super().__init__(before=note)
"""
CARD = Card.model_validate(
    {
        "name": "noises",
        "version": 1,
        "title": "Noises",
        "domain": "sound",
        "kind": "frame-multi-label",
        "metric": "segment-f1-micro",
        "segment_s": 1.0,
        "splits": {"train": "train", "test": "test"},
        "chance": 0,
    }
)


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Four hundred short files, one of them broken in the middle: thirteen parts."""
    folder, rng = tmp_path_factory.mktemp("noises"), np.random.default_rng(0)
    clips = []
    for index in range(400):
        path = folder / f"{index:03d}.flac"
        soundfile.write(path, rng.uniform(-0.5, 0.5, rng.integers(2_000, 20_000)), 16_000)
        clips.append(Clip(path.name, AudioFile(path), (), split="test" if index % 4 == 0 else "train"))
    broken = folder / "200.flac"
    broken.write_bytes(broken.read_bytes()[:3000] + bytes(len(broken.read_bytes()) - 3000))
    return clips


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of Ray on this machine, one CPU each."""
    try:
        import ray
        from ray.cluster_utils import Cluster
    except ImportError:
        missing("Ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "bench"), str(ROOT / "tests")]))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        ray.init(address=nodes.address, log_to_driver=False)
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def plan_in(cache: Path, clips: list[Clip], spec: ModelSpec = SPEC) -> Plan:
    encoder = open_encoder(spec)
    return make_plan(scan_task(CARD, clips, "made", (), cache, None), describe_encoder(encoder.info), cache)


def locally(cache: Path, clips: list[Clip], spec: ModelSpec) -> Any:
    encoder = open_encoder(spec)
    encoder.load("cpu", "fp32")
    return extract(plan_in(cache, clips, spec), encoder, SETTINGS, lambda *_: None)


def hashes(cache: Path) -> dict[str, str]:
    files = [path for path in cache.rglob("*") if path.is_file() and ".locks" not in path.parts]
    kept = [path for path in files if not path.name.endswith(".scan.parquet")]
    return {str(path.relative_to(cache)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


@pytest.mark.slow
def test_a_node_killed_half_way_changes_no_byte(tmp_path: Path, noises: list[Clip], cluster: Any) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    spec, log = ModelSpec(f"{tmp_path / 'slow.py'}:Slow"), tmp_path / "batches"
    alone = locally(tmp_path / "one", noises, spec)
    needed = len(log.read_text().split())
    log.unlink()
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    seen: list[int] = []
    killed: list[int] = []

    def progress(rows: Sequence[int]) -> None:
        seen.append(len(rows))
        if not killed and len(set(log.read_text().split())) == 2:  # both nodes are at work
            cluster.remove_node(second, allow_graceful=False)
            killed.append(len(seen))

    plan = plan_in(tmp_path / "many", noises, spec)
    done = extract_on_ray(plan, spec, SETTINGS, "fp32", progress)
    assert 0 < killed[0] < len(plan.parts) - 1
    assert len(log.read_text().split()) >= needed  # more, but for a worker that was lost between two parts
    assert hashes(tmp_path / "one") == hashes(tmp_path / "many")
    assert sum(seen) == 400
    assert (done.encoded, done.chunked) == (alone.encoded, alone.chunked) == (399, 0)
    assert done.audio_s == pytest.approx(alone.audio_s)
    assert [error.what for error in done.unreadable] == [error.what for error in alone.unreadable]


def test_an_error_of_a_worker_is_raised_as_it_was(tmp_path: Path, noises: list[Clip], cluster: Any) -> None:
    plan = plan_in(tmp_path / "cache", noises)
    with pytest.raises(EncoderError, match="has other weights or another version on a worker"):
        extract_on_ray(plan, ModelSpec("mfcc"), SETTINGS, "fp32", lambda *_: None)
    assert plan.store.manifest("noises") is None


def test_a_part_is_sent_with_its_own_clips_alone(tmp_path: Path, noises: list[Clip]) -> None:
    plan = plan_in(tmp_path / "cache", noises)
    alone = part_of(plan, plan.parts[3])
    rows = plan.parts[3].rows
    assert [clip.id for clip in alone.task.clips] == [noises[row].id for row in rows]
    assert alone.task.table.keys == tuple(plan.task.table.keys[row] for row in rows)
    assert alone.parts[0].rows == tuple(range(len(rows)))
