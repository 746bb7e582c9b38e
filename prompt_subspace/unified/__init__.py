"""UDT: one small subspace for all delta methods (Yi et al. 2022)."""
