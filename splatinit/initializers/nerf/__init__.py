"""``nerf``: points drawn from a radiance field that is fitted to the posed photos first; needs no points.

``config.py`` has the settings, ``space.py`` the volume of the field, ``photos.py`` the pixels that it is fitted to,
``depths.py`` what the training views see of it, ``drawing.py`` the points, ``initializer.py`` puts them together.
Nothing is imported here: who lists the settings need not wait for torch.
"""
