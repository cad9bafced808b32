"""`python -m uniwhisper` is the command `uniwhisper`, and what launchers start: `torchrun -m uniwhisper train ...`."""

from uniwhisper.cli import main

if __name__ == "__main__":  # a worker that is spawned imports this file again
    main()
