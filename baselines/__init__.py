"""Reference recommenders: data, model, training recipe, task and quality metrics."""
