"""The stages in order: open tasks, scan their audio, plan, extract, probe, write results, collect failures."""
