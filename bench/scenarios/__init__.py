"""The loads under which a cell is measured: one file per scenario."""
