"""MuQ by `MuQ.forward`, one state at a time through `MuQModel.get_latent`."""

# pyright: reportMissingImports=false
from calling import main
from muq import MuQ
from muq.muq.muq import MuQConfig
from transformers import Wav2Vec2ConformerConfig

WIDTH, DEPTH = 48, 3
OWN = {"num_attention_heads": 4, "intermediate_size": 2 * WIDTH, "position_embeddings_type": "rotary"}
SETTINGS = Wav2Vec2ConformerConfig(hidden_size=WIDTH, num_hidden_layers=DEPTH, **OWN).to_dict()
CONFORMER = {name: value for name, value in SETTINGS.items() if isinstance(value, (bool, int, float, str))}


def make(folder):
    config = MuQConfig(
        conv_dim=32,
        encoder_dim=WIDTH,
        encoder_depth=DEPTH,
        codebook_size=64,
        w2v2_config=CONFORMER,
        stat={"melspec_2048_mean": 6.0, "melspec_2048_std": 18.0},
    )
    MuQ(config).save_pretrained(folder)


def load(folder):
    model = MuQ.from_pretrained(folder).eval()

    def call(clip):
        for layer in range(DEPTH + 1):
            yield model.model.get_latent(clip, layer_ix=layer)[0]

    return call


main(make, load)
