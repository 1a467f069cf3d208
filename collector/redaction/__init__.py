"""What must not reach the disk: personal data and secrets in content, and the content of those who want none kept."""
