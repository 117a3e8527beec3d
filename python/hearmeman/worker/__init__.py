"""The serverless worker: takes jobs from RunPod's queue with its SDK and runs them in ComfyUI."""
