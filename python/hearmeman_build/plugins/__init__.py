"""What runs inside the build sandbox: each module is one plugin that a derivation starts, or what plugins share."""
