"""Reference recommenders in plain PyTorch, one file each."""
