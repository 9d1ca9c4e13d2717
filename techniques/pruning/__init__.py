"""Less to compute or to hold: weights, units, heads, layers and rows left out."""
