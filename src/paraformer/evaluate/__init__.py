"""How well a model recognises: errors, speed, delays, and whether a difference between two models is real."""
