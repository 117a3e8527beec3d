"""Programs of researchers that the image may not carry: fetched when a person agrees, run in ComfyUI's Python."""
