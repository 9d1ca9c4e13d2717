"""The measuring engine: suite → plan → trials → records → effects and verdicts."""
