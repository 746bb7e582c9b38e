"""Tests; they mirror the package. What many share is in `tiny`."""
