"""Output for people: the logbook of a run, tables, figures and pictures."""
