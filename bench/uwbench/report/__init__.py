"""Results made readable: the board, its table, CSV, Markdown, JSON, HTML page and figures. Never imports torch."""
