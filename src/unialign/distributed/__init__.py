"""Many processes: one batch that lies on all of them."""
