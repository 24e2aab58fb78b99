"""splatinit: start 3D Gaussian Splatting from any point cloud, train all starts with one trainer, and compare them."""

__version__ = "0.1.0"
