"""Frozen T5 backbones, and small trained trees that change what they compute.

The command line is `python -m prompt_subspace.run`.
"""
