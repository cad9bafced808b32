"""The command line: everything that parses or prints."""
