"""Scores: what a backbone with a delta predicts, and how good that is."""
