"""PaSST by the model that `hear21passt.base` builds, its blocks one after the other."""

# pyright: reportMissingImports=false
import torch
from calling import main
from hear21passt.models.passt import get_model
from hear21passt.models.preprocess import AugmentMelSTFT

ARCH = "passt_s_swa_p16_128_ap476"


def make(path):
    torch.save(get_model(ARCH, pretrained=False).state_dict(), path)


def load(path):
    net = get_model(ARCH, pretrained=False)
    net.load_state_dict(torch.load(path))
    net.eval()
    mel = AugmentMelSTFT(fmin_aug_range=10, fmax_aug_range=2000, n_mels=128, sr=32000, hopsize=320, n_fft=1024).eval()

    def call(clip):
        spectra = mel(clip)[:, None]
        patches = net.patch_embed(spectra)
        patches = patches + net.time_new_pos_embed[..., : patches.shape[-1]] + net.freq_new_pos_embed
        bands = patches.shape[2]
        tokens = torch.cat([net.cls_token, net.dist_token], 1) + net.new_pos_embed
        state = torch.cat([tokens, patches.flatten(2).transpose(1, 2)], 1)
        states = [state]
        for block in net.blocks:
            states.append(block(states[-1]))
        states[-1] = net.norm(states[-1])
        summary = net.forward_features(spectra)[0]
        assert torch.equal(states[-1][:, 0], summary)
        for state in states:
            yield state[0, 2:].unflatten(0, (bands, -1)).mean(0)

    return call


main(make, load)
