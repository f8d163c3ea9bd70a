"""What keeps a file from doing more than being read."""
