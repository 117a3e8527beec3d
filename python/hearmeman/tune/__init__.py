"""Memory settings for ComfyUI that fit the GPU, and the check of its arguments."""
