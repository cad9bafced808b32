"""Run the command `uwbench` as `python -m uwbench`."""

import os
import sys

# `python -m` puts the current folder first on the path, so that a `typer.py` among somebody's data would be imported.
# Only modules that are loaded already are used for this check, since `pathlib` could come from that folder too.
if sys.path[0] == os.getcwd() and __file__ != os.sep.join((sys.path[0], "uwbench", "__main__.py")):  # noqa: PTH109, PTH118
    del sys.path[0]

from uwbench.cli.main import main

main()
