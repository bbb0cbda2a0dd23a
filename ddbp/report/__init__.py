"""What a run folder says, for people: one page, a table of runs, a run that goes on."""
