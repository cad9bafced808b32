"""Numbers on record: result files, metrics, intervals, averages, contamination."""
