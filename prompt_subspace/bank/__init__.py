"""The bank: stored deltas with their cards."""
