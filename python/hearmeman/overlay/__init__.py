"""Python packages that a person adds to ComfyUI: a venv on the volume, over the image's own environment."""
