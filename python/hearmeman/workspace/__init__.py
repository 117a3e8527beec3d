"""The workspace: ComfyUI's user folder, inputs, and what was added to it, kept in the bucket and brought back."""
