"""Greedy answers of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from uniwhisper.model.collate import Collator
from uniwhisper.model.model import AudioModel
from uniwhisper.model.tokens import Text

if TYPE_CHECKING:
    import numpy as np


def answer(
    model: AudioModel,
    text: Text,
    audio: Sequence[np.ndarray],
    instructions: Sequence[str],
    *,
    mels: int,
    stack: int,
    longest: int = 64,
) -> list[str]:
    """Return the greedy answer to each clip and instruction, of at most `longest` tokens.

    The audio is encoded once. The text is computed again for every token, which is exact at any length of prompt and
    cheap for the short answers of a check during training.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    batch = Collator(text, mels, stack).prompts(audio, instructions).to(str(device))
    lengths = batch.lengths
    said: list[list[int]] = [[] for _ in lengths]
    open_rows = set(range(len(lengths)))
    with torch.no_grad():
        frames = model.encode(batch.mel)
        for count in range(longest):
            width = batch.ids.shape[1]
            ends = torch.tensor([length + count - 1 for length in lengths], device=device)
            keep = torch.arange(width, device=device) == ends[:, None]
            chosen = model.logits(frames, batch, keep).argmax(dim=-1).tolist()
            for row, token in enumerate(chosen):
                if row in open_rows and token == text.end:
                    open_rows.discard(row)
                elif row in open_rows:
                    said[row].append(token)
            if not open_rows or (text.longest is not None and width + 1 > text.longest):
                break
            ids = torch.nn.functional.pad(batch.ids, (0, 1), value=text.pad)
            ids[torch.arange(len(lengths), device=device), ends + 1] = torch.tensor(chosen, device=device)
            batch = replace(batch, ids=ids, is_audio=torch.nn.functional.pad(batch.is_audio, (0, 1)))
    model.train(was_training)
    return [text.decode(ids) for ids in said]
