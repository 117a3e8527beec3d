"""A stand-in ComfyUI: the real command line and HTTP API, with the few nodes that need no model and no torch."""
