"""Dasheng: its output by `forward`, the layers before by its blocks in turn on its own patches."""

# pyright: reportMissingImports=false
import torch
from calling import main
from dasheng.pretrained.pretrained import Dasheng

CONFIG = {"embed_dim": 48, "depth": 3, "num_heads": 4, "target_length": 300}  # pieces of 3 s


def make(path):
    torch.save({"model": Dasheng(**CONFIG).state_dict(), "config": CONFIG}, path)


def load(path):
    model = Dasheng.from_pretrained(path).eval()

    def call(clip):
        pieces = model.patch_embed(model.forward_to_spec(clip)).split(CONFIG["target_length"] // 4, dim=-1)
        states = [
            (piece + model.time_pos_embed[..., : piece.shape[-1]] + model.freq_pos_embed)[0].flatten(1).T
            for piece in pieces
        ]
        for block in model.blocks:
            yield torch.cat(states)
            states = [block(state[None])[0] for state in states]
        yield model(clip)[0]

    return call


main(make, load)
