"""What was fetched or computed before, kept: rows, vectors, answers."""
