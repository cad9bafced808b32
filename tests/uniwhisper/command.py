"""The command line as a file, as torchrun starts programs."""

from uniwhisper.cli import main

if __name__ == "__main__":
    main()
