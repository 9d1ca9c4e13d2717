"""A predictor behind a queue: requests that come by themselves, and what becomes of each."""
