"""MPT: meta-learning where a prompt starts (Qin et al. 2023)."""
