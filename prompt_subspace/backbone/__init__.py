"""Frozen backbones: Flax modules whose sites read a delta."""
