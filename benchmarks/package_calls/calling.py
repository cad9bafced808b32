"""Functions for the scripts of this folder, which run in a package's environment and import nothing of uwbench.

python call_X.py make WEIGHTS           # a small model with random weights, in the form that is published
python call_X.py call WEIGHTS IN OUT    # its layers for the clips in IN (npz), by the package's own functions
"""

import sys

import numpy as np
import torch


def main(make, load):
    """Make a checkpoint, or load one and call it on clips `(1, samples)`: `(layers, frames, dim)` each, in order."""
    step, weights, *files = sys.argv[1:]
    torch.manual_seed(0)
    if step == "make":
        make(weights)
        return
    clips = np.load(files[0])
    call = load(weights)
    with torch.inference_mode():
        states = {name: torch.stack(list(call(torch.from_numpy(clips[name])[None]))).numpy() for name in clips.files}
    np.savez(files[1], **states)  # pyright: ignore[reportArgumentType]
