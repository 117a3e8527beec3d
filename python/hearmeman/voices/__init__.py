"""The command for adding voices to the voice APIs."""
