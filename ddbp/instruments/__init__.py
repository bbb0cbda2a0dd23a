"""What instruments record of training, and how it is read again."""
