"""Language models with two random layers and a tokenizer over bytes, saved as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,  # at the default, all scores are nearly equal
}
# Fields that differ: untied embeddings, a score's bound, layers with a sliding window, scaled embeddings and scores.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False},
    "qwen3": {"tie_word_embeddings": True},
    "gemma2": {"final_logit_softcapping": 3.0, "sliding_window": 16, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 16, "query_pre_attn_scalar": 8},
    "mistral": {"sliding_window": 16},
    "granite": {"embedding_multiplier": 3.0, "logits_scaling": 2.0},
}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = CHATML.replace(
    "assistant\n{% endif %}",
    "assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ 'model' if message.role == 'assistant' else "
    "message.role }}\n{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_MARKS = {
    CHATML: ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    THINKING: ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    GEMMA: ("<pad>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
}


def write_lm(folder: Path, family: str, template: str = CHATML, **fields: Any) -> Path:
    """Write weights, configuration and tokenizer of a small language model; the same on every call."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    size = write_tokenizer(folder, template)
    config = AutoConfig.for_model(family, **{**SHAPE, "vocab_size": size, **FAMILIES.get(family, {}), **fields})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path, template: str | None, marks: tuple[str, ...] | None = None) -> int:
    """Write a tokenizer over bytes with a chat template and its special tokens; return the number of its tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    marks = _MARKS[template or CHATML] if marks is None else marks
    vocabulary = {piece: index for index, piece in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), *marks])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=marks[0],
        bos_token="<bos>" if "<bos>" in marks else None,
        additional_special_tokens=list(marks[1:]),
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    return len(vocabulary)
