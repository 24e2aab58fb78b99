"""The low-cost radiance field. ``kernels.py`` has the native kernels as differentiable functions, ``reference.py`` the
same maths in plain torch, the oracle of the tests.
"""
