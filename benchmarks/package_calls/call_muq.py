"""MuQ by `MuQ.forward`, one state at a time through `MuQModel.get_latent`."""

# pyright: reportMissingImports=false
from calling import main
from muq import MuQ
from muq.muq.muq import MuQConfig

WIDTH, DEPTH = 48, 3
CONFORMER = {
    "attention_dropout": 0.0,
    "conformer_conv_dropout": 0.0,
    "conv_depthwise_kernel_size": 31,
    "hidden_act": "swish",
    "activation_dropout": 0.0,
    "hidden_dropout": 0.0,
    "intermediate_size": 2 * WIDTH,
    "layer_norm_eps": 1e-5,
    "layerdrop": 0.0,
    "max_source_positions": 5000,
    "num_attention_heads": 4,
    "position_embeddings_type": "rotary",
    "rotary_embedding_base": 10000,
}


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
