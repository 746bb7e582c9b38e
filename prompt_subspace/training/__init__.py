"""Advancing many runs together, and keeping what they reach."""
