"""What people read on a terminal: the banner, and text that is safe to print there."""
