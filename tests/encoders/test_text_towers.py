"""Text towers: the vectors of clips and texts are those of transformers, alone and in a batch; what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders import text_models
from uwbench.encoders.base import Encoder, ModelSpec, TextTower
from uwbench.encoders.checkpoint import open_folder
from uwbench.encoders.resolve import open_encoder
from uwbench.encoders.text_towers import text_tower_of
from uwbench.encoders.wave_towers import open_wave_tower
from uwbench.errors import EncoderError
from uwbench.extraction.identity import describe_encoder
from uwbench.probes.knn import unit_rows

TEXTS = ["dog", "This is a sound of rain.", "{é} & co_", "the voice of a dog in the rain, a recording " * 3, "dog"]
MODELS: dict[str, tuple[Callable[[Path], None], Any]] = {
    "clap": (text_models.make_clap, text_models.direct_clap),
    "pe-audio": (text_models.make_pe_audio, text_models.direct_pe_audio),
    "pe-audio-frame": (partial(text_models.make_pe_audio, frame_level=True), text_models.direct_pe_audio),
}


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    make, direct = MODELS[request.param]
    folder = tmp_path_factory.mktemp("models") / request.param
    make(folder)
    return folder, direct


def vector_of(encoder: Encoder, tower: TextTower, samples: np.ndarray) -> np.ndarray:
    """A clip's vector in the space of texts, `(1, dim)`, pooled here."""
    encoder.load("cpu", "fp32")
    with torch.inference_mode():
        waveform, length = torch.from_numpy(samples)[None], torch.tensor([len(samples)])
        encoded = encoder.encode(waveform, length, [encoder.info.layers.index(tower.layer)])
    frames = encoded.frames[:, 0].numpy()
    pooled = (frames if tower.pooling == "mean-all" else frames[:, : int(encoded.valid[0])]).mean(axis=1)
    head = tower.head()
    assert head is not None
    return unit_rows(head(pooled))


def test_clips_and_texts_are_those_of_transformers(model: tuple[Path, Any]) -> None:
    folder, direct = model
    samples = np.random.default_rng(0).normal(0, 0.1, 60_000).astype(np.float32)
    clip, texts = direct(folder, samples, TEXTS)
    encoder = open_encoder(ModelSpec(str(folder)))
    tower = text_tower_of(encoder)
    embedded = tower.embed(TEXTS, "cpu")
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(unit_rows(embedded), unit_rows(texts), atol=1e-5)
    np.testing.assert_allclose(vector_of(encoder, tower, samples), unit_rows(clip), atol=1e-5)
    assert np.linalg.norm(embedded[0] - embedded[1]) > 0.1 * np.linalg.norm(embedded[0])


def test_a_text_does_not_depend_on_its_batch_mates(model: tuple[Path, Any]) -> None:
    folder, _ = model
    tower = text_tower_of(open_encoder(ModelSpec(str(folder))))
    together = tower.embed([*TEXTS, *(f"a sound of {number}" for number in range(80))], "cpu")[: len(TEXTS)]
    alone = np.concatenate([tower.embed([text], "cpu") for text in TEXTS])
    np.testing.assert_allclose(unit_rows(together), unit_rows(alone), atol=1e-5)


def test_a_layer_for_texts_changes_no_fingerprint_of_the_others(tmp_path: Path) -> None:
    """PE-Audio's last layer is known as before; its audio encoder alone has no text tower."""
    from transformers import AutoConfig, PeAudioModel

    text_models.make_pe_audio(tmp_path / "whole")
    model: Any = PeAudioModel.from_pretrained(tmp_path / "whole")
    model.audio_encoder.save_pretrained(tmp_path / "alone")
    (tmp_path / "alone" / "preprocessor_config.json").write_bytes(
        (tmp_path / "whole" / "preprocessor_config.json").read_bytes()
    )
    assert AutoConfig.from_pretrained(tmp_path / "alone").model_type == "pe_audio_encoder"
    whole, alone = (open_encoder(ModelSpec(str(tmp_path / name))) for name in ("whole", "alone"))
    row = open_wave_tower(open_folder(tmp_path / "whole", name="whole"), ModelSpec("whole"))
    assert whole.info.layers == ("joint", *alone.info.layers)
    assert describe_encoder(whole.info).fingerprint == describe_encoder(row.info).fingerprint
    with pytest.raises(EncoderError, match="alone: embeds no texts"):
        text_tower_of(alone)


def test_a_folder_without_a_tokenizer_encodes_clips_and_says_what_it_lacks(tmp_path: Path) -> None:
    text_models.make_clap(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    encoder = open_encoder(ModelSpec(str(tmp_path)))
    with pytest.raises(EncoderError, match=r"its folder has no tokenizer; copy tokenizer\.json"):
        text_tower_of(encoder)


def test_an_unknown_activation_of_the_head_is_refused(tmp_path: Path) -> None:
    text_models.make_clap(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"projection_hidden_act": "gelu"}))
    with pytest.raises(EncoderError, match="activation 'gelu'"):
        text_tower_of(open_encoder(ModelSpec(str(tmp_path)))).head()


def test_another_tokenizer_is_another_text_tower(tmp_path: Path) -> None:
    text_models.make_clap(tmp_path)
    before, audio = (text_tower_of(e := open_encoder(ModelSpec(str(tmp_path)))).identity, e.info.identity)
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace('"dog": 4', '"cat": 4'))
    encoder = open_encoder(ModelSpec(str(tmp_path)))
    assert text_tower_of(encoder).identity != before
    assert encoder.info.identity == audio
