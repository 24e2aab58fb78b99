"""Reports of runs: their figures, and the pages that show them."""
