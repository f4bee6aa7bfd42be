"""Reports: progress while a run trains, and comparisons of runs in tables and figures."""
