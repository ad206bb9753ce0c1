"""Model of the costs of a training step, and counts that check it."""
