"""Recipes: from data of a kind to a trained model, its report and a bundle."""
