"""Any causal language model: its own shape, chat format and scores; what cannot be trained is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from runs import digits
from small_lm import CHATML, FAMILIES, GEMMA, SHAPE, THINKING, write_lm, write_tokenizer
from small_whisper import ENCODER
from uniwhisper.cli.train import overlay_of
from uniwhisper.config import Config, load_config, overlaid, parse_config
from uniwhisper.cost import Costs
from uniwhisper.data.examples import Example, Question
from uniwhisper.language_model import shape_of
from uniwhisper.model.build import build_model
from uniwhisper.model.collate import Collator
from uniwhisper.model.model import UniWhisper, own_state
from uniwhisper.model.tokens import open_text
from uwbench.api import EncoderError, InputError


def with_lm(whisper: Path, folder: Path, **overlay: Any) -> Config:
    """Return cpu-mini with the small Whisper and the language model of a folder, as `--encoder` and `--lm` give it."""
    named = overlay_of((), encoder=str(whisper), lm=str(folder))
    return load_config("cpu-mini", overlaid(named, {"encoder": ENCODER, **overlay}))


def collator(config: Config) -> Collator:
    return Collator(open_text(config), config.encoder.mels, config.adapter.stack, config.optimiser.reduction)


@pytest.fixture(scope="module")
def examples(shared_data: Path) -> list[Example]:
    return digits(shared_data, 3)


@pytest.fixture(scope="module", params=FAMILIES)
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small language model of a family."""
    template = GEMMA if request.param.startswith("gemma") else CHATML
    return write_lm(tmp_path_factory.mktemp(request.param), request.param, template)


def test_losses_are_those_of_the_stock_model(lm: Path, small_whisper: Path, examples: list[Example]) -> None:
    config = with_lm(small_whisper, lm)
    model, batch = build_model(config), collator(config)(examples)
    assert isinstance(model, UniWhisper)
    stock: Any = AutoModelForCausalLM.from_pretrained(lm, dtype=torch.float32).eval()
    with torch.no_grad():
        losses = list(model(batch).split(batch.is_answer.sum(dim=1).tolist()))
        spans = model.adapter.spans(model.encode(batch.mel), batch.tokens)
        for row, loss in enumerate(losses):
            ids, length = batch.ids[row], batch.lengths[row]
            embedded = stock.get_input_embeddings()(ids)
            embedded[batch.is_audio[row]] = spans[int(batch.clip_of[row])]
            scores = stock(inputs_embeds=embedded[None, :length]).logits[0]
            places = batch.is_answer[row].nonzero()[:, 0]
            expected = torch.nn.functional.cross_entropy(scores[places - 1], ids[places], reduction="none")
            torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
            assert float(expected.std()) > 0


@pytest.mark.parametrize("train", ["full", "frozen", "lora"])
def test_the_shape_is_the_models_own(lm: Path, small_whisper: Path, examples: list[Example], train: str) -> None:
    config = with_lm(small_whisper, lm, lm={"train": train, "lora": {"rank": 3}})
    model = build_model(config)
    encoder, adapter, decoder, trained = Costs.of(config).parameters()
    assert sum(p.numel() for p in model.parameters()) == encoder + adapter + decoder
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained
    model(collator(config)(examples[:1])).sum().backward()
    learnt = {name for name, p in model.lm.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert bool(learnt) == (train != "frozen")
    assert model.encoder.conv1.weight.grad.abs().sum() > 0


def test_a_random_model_of_the_same_shape_has_other_weights(small_whisper: Path, tmp_path: Path) -> None:
    folder = write_lm(tmp_path / "lm", "llama")
    pretrained, random = (
        build_model(with_lm(small_whisper, folder, lm={"kind": kind}, run={"seed": 1})).lm.state_dict()
        for kind in ("causal", "random-causal")
    )
    assert {name: value.shape for name, value in pretrained.items()} == {k: v.shape for k, v in random.items()}
    assert not torch.equal(pretrained["lm_head.weight"], random["lm_head.weight"])


FORMATS = {
    "chatml": (CHATML, "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"),
    "thinking": (
        THINKING,
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|im_end|>",
    ),
    "gemma": (GEMMA, "<bos><start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_chat_format_is_the_models_and_only_the_answer_is_learnt(
    name: str, small_whisper: Path, tmp_path: Path, examples: list[Example]
) -> None:
    from transformers import AutoTokenizer

    template, before, between, end = FORMATS[name]
    config = with_lm(small_whisper, write_lm(tmp_path / "lm", "llama", template))
    said = replace(examples[0], questions=(Question("Say <|im_end|> aloud", " seven, Zoë", "digit"),))
    batch, text = collator(config)([said]), open_text(config)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "lm")
    written = tokenizer.decode(batch.ids[0][~batch.is_audio[0]])
    assert written == f"{before}Say <|im_end|> aloud{between} seven, Zoë{end}"
    assert batch.ids[0][batch.is_answer[0]].tolist() == [*text.encode(" seven, Zoë"), text.end]
    assert text.end == tokenizer.convert_tokens_to_ids(end)
    assert text.end not in text.encode(end)  # in a question, it is text
    assert text.decode(batch.ids[0][batch.is_answer[0]].tolist()) == " seven, Zoë"


def test_a_tokenizer_without_template_speaks_chatml_or_is_refused(small_whisper: Path, tmp_path: Path) -> None:
    write_lm(tmp_path / "lm", "llama", THINKING)
    (tmp_path / "lm" / "chat_template.jinja").unlink()
    assert (
        open_text(with_lm(small_whisper, tmp_path / "lm"))
        .decode(open_text(with_lm(small_whisper, tmp_path / "lm")).between)
        .endswith("assistant\n\n\n\n\n")
    )  # the special tokens around the empty thought are not shown
    write_tokenizer(tmp_path / "lm", None, ("<pad>",))
    (tmp_path / "lm" / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(EncoderError, match="has no chat format"):
        open_text(with_lm(small_whisper, tmp_path / "lm"))


def test_a_configuration_from_before_other_models_is_the_same_model(small_whisper: Path) -> None:
    former = {"kind": "random-qwen3", "dim": 32, "layers": 2, "ffn": 64, "heads": 2, "kv_heads": 1, "head_dim": 16}
    whisper = {**ENCODER, "init": str(small_whisper)}
    old = load_config("cpu-mini", {"encoder": whisper, "lm": former})
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
    }
    new = load_config("cpu-mini", {"encoder": whisper, "lm": {"shape": shape}})
    assert old == new
    assert parse_config(old.model_dump(mode="json")) == old
    assert all(
        torch.equal(value, own_state(build_model(new))[name]) for name, value in own_state(build_model(old)).items()
    )
    with pytest.raises(InputError, match="Input should be 'causal', 'random-causal', 'whisper' or 'heads'"):
        load_config("cpu-mini", {"lm": {"kind": "qwen"}})


def test_what_cannot_be_trained_is_named(small_whisper: Path, tmp_path: Path) -> None:
    folder = write_lm(tmp_path / "lm", "llama")
    shape = {"model_type": "llama", **SHAPE, "vocab_size": 259, "num_hidden_layers": 3}
    with pytest.raises(InputError, match=r"parameters, the configuration's lm\.shape \d+; leave out lm\.shape"):
        build_model(with_lm(small_whisper, folder, lm={"shape": shape}))
    with pytest.raises(InputError, match=r"has 259 tokens, the language model 100"):
        open_text(with_lm(small_whisper, folder, lm={"shape": {**shape, "vocab_size": 100}}))
    with pytest.raises(InputError, match=r"lm\.shape: has no configuration that can be read"):
        shape_of(with_lm(small_whisper, folder, lm={"shape": {"model_type": "lama"}}).lm)
    with pytest.raises(InputError, match="names neither init nor shape"):
        shape_of(load_config("cpu-mini", {"lm": {"kind": "causal", "shape": None}}).lm)
    experts = {"model_type": "mixtral", **SHAPE, "vocab_size": 259, "num_local_experts": 2}
    with pytest.raises(EncoderError, match="mixture of experts"):
        shape_of(with_lm(small_whisper, folder, lm={"shape": experts}).lm)
    other = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 259}
    with pytest.raises(EncoderError, match="gpt2: is not made of `layers`"):
        shape_of(load_config("cpu-mini", {"lm": {"shape": None}}).lm.model_copy(update={"shape": other}))
