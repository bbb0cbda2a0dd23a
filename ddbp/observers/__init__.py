"""What watches training without being a part of it."""
