"""Training: the recipe of the demo model, and how it is measured."""
