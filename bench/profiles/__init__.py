"""What the profiler saw of both arms of a cell, and what follows from it."""
