"""What a recommender is trained and judged for: loss, requests, protocol of quality."""
