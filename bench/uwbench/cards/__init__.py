"""Cards: descriptions of tasks, suites and protocols."""
