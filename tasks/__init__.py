"""Tables of tasks, one file per suite; importing a file makes it known."""
