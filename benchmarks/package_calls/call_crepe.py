"""CREPE with its published weights: what `Crepe.forward` hands to its classifier, by `preprocess` and `embed`."""

# pyright: reportMissingImports=false
import torchcrepe
from calling import main


def load(capacity):
    torchcrepe.load.model("cpu", capacity)
    model = torchcrepe.infer.model

    def call(clip):
        (windows,) = torchcrepe.preprocess(clip, 16_000, 160)
        last = model.layer(model.embed(windows), model.conv6, model.conv6_BN)
        yield last.permute(0, 2, 1, 3).reshape(-1, model.in_features)

    return call


main(None, load)
