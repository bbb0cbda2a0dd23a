"""Networks over trees."""
