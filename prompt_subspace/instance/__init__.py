"""IPT: prompts made for each input (Jin et al. 2023)."""
