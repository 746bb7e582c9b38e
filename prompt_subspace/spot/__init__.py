"""SPoT: soft prompt transfer (Vu et al. 2022)."""
