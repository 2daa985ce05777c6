"""What runs sandboxes: `base` is the seam, each folder beside it one engine."""
