"""The gradient check, the table of cases that it is run on, and gradients that are wrong on
purpose.
"""
