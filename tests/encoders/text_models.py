"""Small random CLAP and PE-Audio models with a tokenizer, saved as users find them, and how transformers is called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

WORDS = ("dog", "rain", "a", "sound", "of", "this", "is", "music", "voice", "the", "in", "recording")
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def save_tokenizer(folder: Path) -> None:
    """Save a tokenizer of whole words and single characters, with tokens around a text as RoBERTa has them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [*_SPECIAL, *WORDS, *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"), *"abcdefghijklmnop.,{}é"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    named = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "<s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **named).save_pretrained(folder)


def make_clap(folder: Path) -> None:
    """Save a random ClapModel whose space of clips and texts is narrower than its audio tower."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    torch.manual_seed(0)
    audio = {
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1, 2, 1],
        "num_attention_heads": [2, 2, 4, 4],
        "hidden_size": 64,
    }
    text = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 80,
        "max_position_embeddings": 80,
        "initializer_factor": 20.0,
    }
    model = ClapModel(ClapConfig(audio_config=audio, text_config=text, projection_dim=24, initializer_factor=20.0))
    model.save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(folder)
    save_tokenizer(folder)


def direct_clap(folder: Path, samples: np.ndarray, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return a clip's vector `(1, dim)` and those of texts, each embedded alone, as transformers computes them."""
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    model: Any = ClapModel.from_pretrained(folder).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    inputs = ClapFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=48_000, return_tensors="pt")
    with torch.inference_mode():
        clip = model.get_audio_features(**inputs).pooler_output
        rows = [model.get_text_features(**tokenizer(text, return_tensors="pt")).pooler_output for text in texts]
    return clip.numpy(), torch.cat(rows).numpy()


def make_pe_audio(folder: Path, *, frame_level: bool = False) -> None:
    """Save a random PeAudioModel, or one that compares each frame with a text."""
    import transformers

    torch.manual_seed(0)
    kind = transformers.PeAudioFrameLevelModel if frame_level else transformers.PeAudioModel
    config = transformers.PeAudioConfig(
        audio_config={
            "dac_config": {
                "encoder_hidden_size": 2,
                "downsampling_ratios": [2, 8, 10, 12],
                "hidden_size": 16,
                "codebook_dim": 24,
            },
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 8,
        },
        text_config={
            "model_type": "modernbert",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vocab_size": 80,
            "initializer_range": 0.5,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "cls_token_id": 0,
            "sep_token_id": 2,
        },
    )
    model = kind(config)
    for head in (model.audio_head, model.text_audio_head):  # as trained: neither a scale of 1 nor a shift of 0
        torch.nn.init.normal_(head.layer_norm.weight, 1.0, 0.3)
        torch.nn.init.normal_(head.layer_norm.bias, 0.0, 0.3)
    model.save_pretrained(folder)
    transformers.PeAudioFeatureExtractor().save_pretrained(folder)
    save_tokenizer(folder)


def direct_pe_audio(folder: Path, samples: np.ndarray, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the same of PE-Audio; of a frame-level model, the mean of the clip's frames."""
    import transformers

    config: Any = transformers.AutoConfig.from_pretrained(folder)
    model: Any = getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = transformers.PeAudioFeatureExtractor.from_pretrained(folder)(
        samples, sampling_rate=48_000, return_tensors="pt"
    )
    rows = []
    with torch.inference_mode():
        for text in texts:
            output = model(**tokenizer(text, return_tensors="pt"), input_values=inputs["input_values"])
            rows.append(output.text_audio_embeds)
    clip = output.audio_embeds
    return (clip.mean(1) if clip.ndim == 3 else clip).numpy(), torch.cat(rows).numpy()
