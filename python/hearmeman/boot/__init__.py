"""Settings and facts about the machine to a table of processes, and its execution under supervisord."""
