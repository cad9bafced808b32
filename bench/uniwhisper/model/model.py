"""The models: Whisper's encoder before a language model, Whisper itself with instructions, and heads as a control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn

from uniwhisper.model.adapter import Adapter
from uniwhisper.model.collate import FRAME, Batch
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


def visible(batch: Batch, window: int | None) -> torch.Tensor:
    """Return which token attends to which in rows of several questions, `(R, 1, S, S)`: the row before it, as if alone.

    A question sees what is shared and itself; padding sees itself, so that no row of a softmax is empty. With a sliding
    `window`, a token sees only that many places back, its own included.
    """
    assert batch.segments is not None
    assert batch.positions is not None
    of, seen = batch.segments[:, :, None], batch.segments[:, None, :]
    allowed = ((seen == of) | ((seen == 0) & (of > 0))) & (of >= 0)
    distance = batch.positions[:, :, None] - batch.positions[:, None, :]
    allowed &= distance >= 0
    if window is not None:
        allowed &= distance < window
    return (allowed | torch.eye(of.shape[1], dtype=torch.bool, device=of.device))[:, None]


class AudioModel(nn.Module):
    """A Whisper-shaped encoder with a model that answers.

    With gradients, at most `most_scores` scores of the vocabulary are in memory at a time: those of more tokens are
    computed in parts, and again in the backward.
    """

    encoder: Any
    lm: Any
    most_scores = 2**25  # 128 MB in fp32

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

    def states(self, frames: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the decoder's last hidden states `(R, S, dim)`."""
        raise NotImplementedError

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """Return the next token's scores `(..., vocabulary)` of hidden states `(..., dim)`."""
        raise NotImplementedError

    def logits(self, frames: torch.Tensor, batch: Batch, keep: torch.Tensor) -> torch.Tensor:
        """Return the next token's scores `(kept, vocabulary)` where `keep` (R, S) is true."""
        return self.scores(self.states(frames, batch)[keep])

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the loss of every answer and end token `(A,)`, in the order of `ids[is_answer]`."""
        keep = nn.functional.pad(batch.is_answer[:, 1:], (0, 1))
        return self.losses(self.states(self.encode(batch.mel), batch)[keep], batch.ids[batch.is_answer])

    def losses(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy `(A,)` of the next tokens `targets` (A,) after hidden states `(A, dim)`."""
        rows = max(1, self.most_scores // self.decoder.get_input_embeddings().num_embeddings)
        if len(targets) <= rows or not torch.is_grad_enabled():
            return self._losses(states, targets)
        parts = zip(states.split(rows), targets.split(rows), strict=True)
        return torch.cat(
            [torch.utils.checkpoint.checkpoint(self._losses, *part, use_reentrant=False) for part in parts]
        )

    def _losses(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self.scores(states).float(), targets, reduction="none")

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

    def states(self, frames: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the language model's last hidden states `(R, S, dim)`.

        Rows are padded on the right, and attention is causal: padding reaches no token before it, so rows of one
        question need no mask.
        """
        spans = self.adapter.spans(frames, batch.tokens)
        embedded = self.lm.get_input_embeddings()(batch.ids)
        audio = torch.cat([spans[index] for index in batch.clip_of.tolist()])
        if audio.shape[0] != int(batch.is_audio.sum()):
            raise EncoderError(f"{audio.shape[0]} audio tokens for {int(batch.is_audio.sum())} places")
        embedded = embedded.masked_scatter(batch.is_audio[..., None], audio.to(embedded.dtype))
        attention = {} if batch.segments is None else self._attention(batch, embedded.dtype)
        return self.decoder(inputs_embeds=embedded, use_cache=False, **attention).last_hidden_state

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """Return the next token's scores `(..., vocabulary)`."""
        return next_token_scores(self.lm, states)

    def _attention(self, batch: Batch, dtype: torch.dtype) -> dict[str, Any]:
        """Return masks and positions with which each question of a row is read as if it were alone."""
        config = self.decoder.config
        window = getattr(config, "sliding_window", None)
        default = "full_attention" if window is None else "sliding_attention"
        kinds = set(getattr(config, "layer_types", None) or [default])
        windows = {"full_attention": None, "sliding_attention": window}
        if unknown := sorted(kinds - set(windows)):
            remedy = "give --set data.packed=false"
            raise EncoderError(f"has layers of {unknown[0]}, which cannot read packed questions", remedy=remedy)
        masks = {kind: visible(batch, windows[kind]) for kind in sorted(kinds)}
        if config._attn_implementation == "eager":  # adds its mask to the scores
            least = torch.finfo(dtype).min
            masks = {
                kind: torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, least) for kind, mask in masks.items()
            }
        mask = masks if len(masks) > 1 else next(iter(masks.values()))
        return {"attention_mask": mask, "position_ids": batch.positions}


class Heads(AudioModel):
    """No language model: a linear layer per question over a clip's mean frame, without the frames of padding.

    `questions` (classes,) holds the number of the question that each class answers.
    """

    questions: torch.Tensor

    def __init__(self, encoder: nn.Module, dim: int, questions: Sequence[int]) -> None:
        super().__init__(encoder)
        self.lm = nn.Linear(dim, len(questions))  # the layers of all questions, one below the other
        self.register_buffer("questions", torch.tensor(questions), persistent=False)

    @property
    def decoder(self) -> Any:
        """The linear layers."""
        return self.lm

    def states(self, frames: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean frame of each row's clip, at each place of the row, `(R, S, dim)`."""
        counts = [min(-(-samples // FRAME), frames.shape[1]) for samples in batch.samples]
        means = torch.stack([clip[:count].mean(dim=0) for clip, count in zip(frames, counts, strict=True)])
        return means[batch.clip_of][:, None].expand(-1, batch.ids.shape[1], -1)

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """Return the scores of every question's classes `(..., classes)`."""
        return self.lm(states)

    def losses(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy `(A,)` of the classes `targets` (A,), each among those of its question."""
        others = self.questions[None] != self.questions[targets][:, None]
        return nn.functional.cross_entropy(
            self.scores(states).float().masked_fill(others, -torch.inf), targets, reduction="none"
        )


class WhisperArm(AudioModel):
    """Whisper itself: the instruction is the decoder's prefix, and audio enters by cross-attention."""

    def __init__(self, encoder: nn.Module, lm: nn.Module) -> None:
        super().__init__(encoder)
        self.lm = lm  # Whisper's decoder; its output layer is its embedding

    @property
    def decoder(self) -> Any:
        """Whisper's decoder."""
        return self.lm

    def states(self, frames: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the decoder's last hidden states `(R, S, dim)`."""
        return self.lm(
            input_ids=batch.ids, encoder_hidden_states=frames[batch.clip_of], use_cache=False
        ).last_hidden_state

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """Return the next token's scores `(..., vocabulary)`."""
        return nn.functional.linear(states, self.lm.embed_tokens.weight)
