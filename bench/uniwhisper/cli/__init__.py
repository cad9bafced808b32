"""The command line of the companion."""
