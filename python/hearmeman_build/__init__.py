"""The build plugins that nix/ calls, and the host's side of them: locks, prefetch, build, reproduce."""
