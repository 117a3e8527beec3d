"""Real servers on loopback that stand where a test cannot reach the service itself."""
