"""Training and serving that do not wait for each other."""
