"""The tape and what it is made of: calls, values, layers, parameters, memory."""
