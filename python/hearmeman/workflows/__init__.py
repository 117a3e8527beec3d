"""Ready-made ComfyUI workflows: listing and running them."""
