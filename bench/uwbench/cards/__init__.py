"""Cards: what a task, a suite and a protocol is."""
