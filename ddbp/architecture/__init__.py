"""What a model is made of, as JSON holds it."""
