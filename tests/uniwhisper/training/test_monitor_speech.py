"""Speech that is left in an encoder, as Whisper's own decoder hears it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from packed import NAMES
from uniwhisper.config import load_config
from uniwhisper.data.examples import Example, Question
from uniwhisper.model.build import load_encoder
from uniwhisper.model.model import AudioModel
from uniwhisper.model.transcribe import WINDOW_S, Transcriber, plain_words
from uniwhisper.sampling.held_out import HeldOut
from uniwhisper.training.monitor import Speech
from uwbench.api import AudioFile, InputError, decode

RATE = 16_000


@pytest.fixture(scope="module")
def digits(shared_data: Path) -> HeldOut:
    """Six digits, each said by another person."""
    folder = shared_data / "fsdd" / "recordings"
    speakers = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    names = [f"{digit}_{speaker}_{take}" for take, (digit, speaker) in enumerate(zip("123457", speakers, strict=True))]
    audio = [decode(AudioFile(folder / f"{name}.wav"), RATE) for name in names]
    asked = [(Question("What is said?", NAMES[name[0]], "asr"),) for name in names]
    return HeldOut(tuple(Example(*three) for three in zip(names, ["fsdd"] * 6, audio, asked, strict=True)))


def test_the_decoder_writes_what_generate_writes(whisper_tiny: Path, digits: HeldOut) -> None:
    from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

    transcriber = Transcriber(whisper_tiny)
    audio = [np.pad(example.audio, (RATE, 0)) for example in digits.examples[:2]]
    written = transcriber.write(AudioModel(transcriber.encoder), audio, [1, 1])
    model: Any = WhisperForConditionalGeneration.from_pretrained(whisper_tiny)
    mel = WhisperFeatureExtractor()(audio, sampling_rate=RATE, return_tensors="pt").input_features
    ids = model.generate(mel, do_sample=False, num_beams=1, max_new_tokens=8, suppress_tokens=None)
    tokenizer: Any = AutoTokenizer.from_pretrained(whisper_tiny)
    assert written == [plain_words(text) for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]


def test_an_encoder_that_lost_its_speech_is_noticed(whisper_tiny: Path, digits: HeldOut) -> None:
    config = load_config("cpu-mini", {"encoder": {"init": str(whisper_tiny)}, "run": {"monitor_speech": True}})
    original = AudioModel(load_encoder(config)).eval()
    speech = Speech(config, digits, original, "cpu")
    assert speech.original < 0.9
    assert speech.wer(original) == speech.original  # the same on every call
    for parameter in original.encoder.layers[-1].parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(0))
    assert speech.wer(original) >= 1
    named = (Question("?", "1", "keyword"),)
    none = HeldOut(tuple(Example(e.row, e.dataset, e.audio, named) for e in digits.examples))
    with pytest.raises(InputError, match=r"monitor_speech: no held-out clip has the task asr"):
        Speech(config, none, original, "cpu")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        Transcriber(tmp_path)


def test_words_are_compared_without_case_marks_and_figures() -> None:
    assert WINDOW_S == 30
    assert plain_words(" The Cat's 3, 10 and Four!") == "the cat's three ten and four"
