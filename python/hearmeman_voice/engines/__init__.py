"""The engines, each a class that imports what it needs only when it loads."""
