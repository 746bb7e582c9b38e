"""SeqIO tasks and folders of files become token arrays, mixtures and splits."""
