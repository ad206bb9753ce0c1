"""An objective, a metric and a reader for `unialign`."""
