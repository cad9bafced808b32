"""OpenBEATs by `OpenBeats.encode`, layer by layer through its `max_layer`."""

# pyright: reportMissingImports=false
import torch
from calling import main
from openbeats.beats_encoder import BeatsEncoder
from openbeats.model import OpenBeats

CONFIG = {
    "encoder_layers": 3,
    "encoder_embed_dim": 48,
    "encoder_ffn_embed_dim": 96,
    "encoder_attention_heads": 4,
    "embed_dim": 32,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "deep_norm": True,
    "max_distance": 800,
}


def make(path):
    encoder = BeatsEncoder(input_size=0, beats_config=CONFIG)
    torch.save({"cfg": CONFIG, "model": encoder.state_dict()}, path)


def load(path):
    models = [OpenBeats.from_pretrained(path, max_layer=layer) for layer in range(CONFIG["encoder_layers"] + 1)]

    def call(clip):
        for model in models:
            patches = torch.from_numpy(model.encode(clip[0].numpy())["patch_embeddings"])
            yield patches.unflatten(0, (-1, 8)).mean(1)  # eight bands of 16 mel bins

    return call


main(make, load)
