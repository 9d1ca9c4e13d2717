"""Efficiency techniques: one file per family, one small class per technique."""
