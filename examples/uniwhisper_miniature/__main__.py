"""Run the experiment: `python examples/uniwhisper_miniature --data DATA --encoder WHISPER --output FOLDER`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # this folder's modules are named uniwhisper_miniature.*
    from uniwhisper_miniature.command import main

    main()
