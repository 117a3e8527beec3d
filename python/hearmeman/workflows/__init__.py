"""Ready ComfyUI workflows: what there is, and running one."""
