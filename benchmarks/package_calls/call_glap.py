"""GLAP's audio encoder by its own `DashengWrapper`: the mean of our last layer's frames is its answer."""

# pyright: reportMissingImports=false

import torch
from calling import main
from dasheng.pretrained.pretrained import Dasheng
from glap_model.models.audioencoders import DashengWrapper

CONFIG = {"embed_dim": 768, "depth": 12, "num_heads": 12}
PREFIX = "audio_encoder.model."


def make(path):
    tensors = Dasheng(**CONFIG).state_dict()
    torch.save({"model": tensors, "config": CONFIG}, f"{path}.tower")  # as the wrapper's own base is published
    torch.save({"model": {PREFIX + name: tensor for name, tensor in tensors.items()}, "config": {}}, path)


def load(path):
    tower = DashengWrapper(path=f"{path}.tower").eval()
    model = tower.model
    tensors = torch.load(path)["model"]
    model.load_state_dict({name[len(PREFIX) :]: tensor for name, tensor in tensors.items()})

    def call(clip):
        patches = model.patch_embed(model.forward_to_spec(clip))
        state = (patches + model.time_pos_embed[..., : patches.shape[-1]] + model.freq_pos_embed)[0].flatten(1).T
        for block in model.blocks:
            yield state
            state = block(state[None])[0]
        last = model.norm(state)
        assert torch.allclose(last.mean(0), tower(clip)[0], rtol=1e-5, atol=1e-6)
        yield last

    return call


main(make, load)
