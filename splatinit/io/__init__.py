"""The only room that opens a user's files: readers of scenes, point clouds and splats, and the run folder."""
