"""Pure geometry: rigid motions and similarities, neighbours, scores of point clouds. Arrays in, arrays out, no I/O."""
