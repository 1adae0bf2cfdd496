"""Character error rate of a model's texts."""
