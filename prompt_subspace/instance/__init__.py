"""IPT: prompts made for each input (Jiang et al. 2022)."""
