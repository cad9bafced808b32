"""`python -m uniwhisper` is the command `uniwhisper`, and what launchers start: `torchrun -m uniwhisper train ...`."""

import os
import sys

# `python -m` puts the present folder first on the path: of a folder of data, its `typer.py` would be run. What is
# loaded already decides here, as `pathlib` could be the folder's too.
if sys.path[0] == os.getcwd() and __file__ != os.sep.join((sys.path[0], "uniwhisper", "__main__.py")):  # noqa: PTH109, PTH118
    del sys.path[0]

from uniwhisper.cli.main import main

if __name__ == "__main__":  # a worker that is spawned imports this file again
    main()
