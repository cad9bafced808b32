"""`python -m uwbench` is the command `uwbench`."""

from uwbench.cli import main

main()
