"""What the pod looks like from outside: collecting it, showing it, restarting a part."""
