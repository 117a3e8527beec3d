"""What can be fetched, what is to be fetched, and the fetching of it."""
