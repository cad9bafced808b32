"""A Whisper with two random layers of 32 units, saved as transformers saves one."""

from __future__ import annotations

from pathlib import Path

# Overlay of a training configuration whose encoder is this one.
ENCODER = {"dim": 32, "layers": 2, "ffn": 64}
_MARKS = ("<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>")


def write_small_whisper(folder: Path) -> None:
    """Write weights, a tokenizer over bytes and a feature extractor; the same on every call."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate([*alphabet, *_MARKS])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end, start, _ = (vocabulary[mark] for mark in _MARKS)
    config = WhisperConfig(
        vocab_size=len(vocabulary),
        d_model=ENCODER["dim"],
        encoder_layers=ENCODER["layers"],
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=ENCODER["ffn"],
        decoder_ffn_dim=ENCODER["ffn"],
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        init_std=0.3,  # at the default, the last layer hardly differs from the first
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        WhisperForConditionalGeneration(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=_MARKS[0], additional_special_tokens=list(_MARKS[1:])
    ).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
