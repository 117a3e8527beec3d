"""hearmeman: what runs inside a ComfyUI pod."""

__version__ = "0.1.0"
