"""Training of encoders from random weights in a plain loop: mechanism of the collapse, remedies, and a test."""
