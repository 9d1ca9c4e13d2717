"""Arithmetic in other precisions, in training and in serving."""
