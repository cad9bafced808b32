"""The two models: Whisper's encoder before a language model, and Whisper itself with instructions."""

from __future__ import annotations

from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn

from uniwhisper.model.adapter import Adapter
from uniwhisper.model.collate import Batch
from uwbench.api import EncoderError


def own_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a model's state, with shared tensors under their first name only."""
    names = {name for name, _ in model.named_parameters()}
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - names
    return {name: value for name, value in model.state_dict().items() if name not in tied}


def next_token_scores(lm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Return a causal language model's scores `(..., vocabulary)` of its last hidden states `(..., dim)`.

    With the scale of Cohere's and Granite's scores and the bound of Gemma 2's.
    """
    scores, config = lm.get_output_embeddings()(hidden), lm.config
    if (factor := getattr(config, "logit_scale", None)) is not None:
        scores = scores * factor
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        scores = scores / divisor
    if (bound := getattr(config, "final_logit_softcapping", None)) is not None:
        scores = bound * torch.tanh(scores / bound)
    return scores


class AudioModel(nn.Module):
    """A Whisper-shaped encoder with a model that answers."""

    encoder: Any
    lm: Any

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.checkpointing = False

    @property
    def decoder(self) -> Any:
        """The layers of the model that answers."""
        raise NotImplementedError

    def encode(self, mel: torch.Tensor) -> torch.Tensor:
        """Return the encoder's frames `(clips, frames, dim)` of log-mel `(clips, mels, 2 * frames)`.

        The stock forward, bit for bit at 30 s, without its demand for 30 s: a shorter input uses the first positions.
        Silence is heard, not masked, as in the stock encoder.
        """
        encoder = self.encoder
        hidden = nn.functional.gelu(encoder.conv1(mel))
        hidden = nn.functional.gelu(encoder.conv2(hidden)).permute(0, 2, 1)
        if hidden.shape[1] > encoder.embed_positions.num_embeddings:
            raise EncoderError(f"{hidden.shape[1]} frames, more than the encoder has positions")
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        for layer in encoder.layers:
            hidden = self._run(layer, hidden, None)
        return encoder.layer_norm(hidden)

    def logits(self, frames: torch.Tensor, batch: Batch, keep: torch.Tensor) -> torch.Tensor:
        """Return the next token's scores `(kept, vocabulary)` where `keep` (R, S) is true."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the loss of every answer and end token `(A,)`, in the order of `ids[is_answer]`."""
        keep = nn.functional.pad(batch.is_answer[:, 1:], (0, 1))
        logits = self.logits(self.encode(batch.mel), batch, keep)
        return nn.functional.cross_entropy(logits.float(), batch.ids[batch.is_answer], reduction="none")

    def _run(self, layer: Any, *inputs: Any) -> Any:
        if self.checkpointing and torch.is_grad_enabled():
            # The mel input has no gradient: reentrant checkpointing would silently drop the encoder's gradient.
            return torch.utils.checkpoint.checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)


class UniWhisper(AudioModel):
    """Encoder, adapter and a causal language model that reads audio, instruction and answer."""

    def __init__(self, encoder: nn.Module, adapter: Adapter, lm: nn.Module) -> None:
        super().__init__(encoder)
        self.adapter = adapter
        self.lm = lm

    @property
    def decoder(self) -> Any:
        """The language model below its output layer."""
        return self.lm.get_decoder()

    def logits(self, frames: torch.Tensor, batch: Batch, keep: torch.Tensor) -> torch.Tensor:
        """Return the next token's scores where `keep` is true.

        Rows are padded on the right, and attention is causal: padding reaches no token before it, so no mask.
        """
        spans = self.adapter.spans(frames, batch.tokens)
        embedded = self.lm.get_input_embeddings()(batch.ids)
        audio = torch.cat([spans[index] for index in batch.clip_of.tolist()])
        if audio.shape[0] != int(batch.is_audio.sum()):
            raise EncoderError(f"{audio.shape[0]} audio tokens for {int(batch.is_audio.sum())} places")
        embedded = embedded.masked_scatter(batch.is_audio[..., None], audio.to(embedded.dtype))
        hidden = self.decoder(inputs_embeds=embedded, use_cache=False).last_hidden_state
        return next_token_scores(self.lm, hidden[keep])


class WhisperArm(AudioModel):
    """Whisper itself: the instruction is the decoder's prefix, and audio enters by cross-attention."""

    def __init__(self, encoder: nn.Module, lm: nn.Module) -> None:
        super().__init__(encoder)
        self.lm = lm  # Whisper's decoder; its output layer is its embedding

    @property
    def decoder(self) -> Any:
        """Whisper's decoder."""
        return self.lm

    def logits(self, frames: torch.Tensor, batch: Batch, keep: torch.Tensor) -> torch.Tensor:
        """Return the next token's scores where `keep` is true."""
        hidden = self.lm(
            input_ids=batch.ids, encoder_hidden_states=frames[batch.clip_of], use_cache=False
        ).last_hidden_state
        return nn.functional.linear(hidden[keep], self.lm.embed_tokens.weight)
