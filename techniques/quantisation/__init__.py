"""Numbers in fewer bits: layers, tables and weights alone."""
