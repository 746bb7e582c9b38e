"""Frozen T5 backbones, and small trained trees that change what they compute."""
