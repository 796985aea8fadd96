"""The published claims, and verdicts computed from rows."""
