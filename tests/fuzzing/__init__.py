"""What `tests/fuzz.py` runs.

draw            the random numbers of a case, and what they were
random_layers   layers and cells of random configurations
reference       cells called step by step, layers by their equations, clips in NumPy
compare         how two computations of the same numbers are compared
claims          what is compared with what
"""
