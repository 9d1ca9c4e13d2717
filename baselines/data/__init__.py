"""Where rows come from: sources, splits, segments, real and planted data sets."""
