"""Serving whose weights are learned from a stream while it answers."""
