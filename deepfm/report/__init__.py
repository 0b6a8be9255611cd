"""One self-contained HTML page per run: what was decided, on which figures, and what to do next."""
