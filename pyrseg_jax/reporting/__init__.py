"""What people read and look at: the logbook of a run, and pictures."""
