"""What is served as one graph: compiled, exported, captured, folded."""
