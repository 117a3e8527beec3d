"""Makes and looks after pods on RunPod, from an image's digest; runs on the operator's machine."""
