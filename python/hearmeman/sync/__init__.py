"""Every output in the bucket: the tree is the truth, a journal says what is already there."""
