"""The voice servers: engines behind one small interface, one queue and one process for each, and two HTTP APIs."""
