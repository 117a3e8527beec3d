"""Research programs whose licences keep them out of the image: fetched once you agree, and run in ComfyUI's Python."""
