"""AVEX's BEATs by `load_model`, its layers through the encoder's `tgt_layer`."""

# pyright: reportMissingImports=false
from avex import build_model_from_spec, get_model_spec, load_model
from calling import main
from safetensors.torch import save_file

NAME = "esp_aves2_sl_beats_all"


def make(path):
    model = build_model_from_spec(get_model_spec(NAME), device="cpu", return_features_only=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}, path)


def load(path):
    model = load_model(NAME, device="cpu", checkpoint_path=path, return_features_only=True)
    model.eval()
    beats = model.backbone

    def call(clip):
        patches = beats.patch_embedding(beats.preprocess(clip)[:, None]).flatten(2).transpose(1, 2)
        inputs = beats.post_extract_proj(beats.layer_norm(patches))
        _, results = beats.encoder.extract_features(inputs, tgt_layer=len(beats.encoder.layers))
        states = [state.transpose(0, 1)[0] for state, _ in results]
        assert (states[-1] == model(clip)[0]).all()
        for state in states:
            yield state.unflatten(0, (-1, 8)).mean(1)  # eight bands of 16 mel bins

    return call


main(make, load)
