"""Results of many runs, brought into tables and pictures."""
